"""GIAS: the latent space, then the generator's own weights (Jeon et al., NeurIPS 2021)."""

from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.presets.published import STANDARDIZED, Variant, with_paper_settings
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.attacks.search.variables.network_weights import GeneratorWeights


@with_paper_settings(
    latent_steps=1000,
    weight_steps=500,
    restarts=4,
    candidates=1,
    total_variation=STANDARDIZED * 1e-4,
)
def gias(
    *,
    variant: Variant = "strong",
    latent_steps: int = 300,
    weight_steps: int = 150,
    restarts: int = 2,
    total_variation: float = 1e-3,
    candidates: int = 16,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
) -> MatchingAttack:
    """Search the latent space, then the generator's own weights for each image.

    Jeon et al. (NeurIPS 2021): Adam at 3e-2 on the latent from several starts, then at 1e-3 on the
    weights. The restart with the least objective goes on.

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated.
        latent_steps: Steps in the latent space.
        weight_steps: Steps of the weights.
        restarts: Starts in the latent space.
        total_variation: Weight of the total variation.
        candidates: Generated faces that are tried as a start; the papers start at random.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Latent(candidates=candidates),
                steps=latent_steps,
                lr=3e-2,
                square_norm=LATENT_PRIOR,
                total_variation=total_variation,
                keep=1,
            ),
            Stage(
                varies=GeneratorWeights(),
                steps=weight_steps,
                lr=1e-3,
                total_variation=total_variation,
            ),
        ),
        restarts=restarts,
        reads_gray=variant == "strong",
        prior=FaceGenerator(source=prior, crop=crop),
    )
