"""GGL: the latent space by evolution, without derivatives (Li et al., CVPR 2022)."""

from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.presets.published import Variant, with_paper_settings
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import Latent


@with_paper_settings(candidates=1, spread=1.0)  # its code: nevergrad's CMA, whose default it is
def ggl(
    *,
    variant: Variant = "strong",
    generations: int = 500,
    population: int | None = 50,
    spread: float = 0.5,
    candidates: int = 16,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
) -> MatchingAttack:
    """Generative gradient leakage: the latent space by CMA-ES, without derivatives.

    Li et al. (CVPR 2022). The distance adapts to clipping (`scaled_l2`).

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated.
        generations: Of CMA-ES.
        population: Candidates a generation; left out, 4 + 3·ln(dimension).
        spread: First standard deviation, in units of the latent's own.
        candidates: Generated faces that are tried as a start; the papers start at random.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Latent(candidates=candidates),
                steps=generations,
                lr=spread,
                optimizer="cma_es",
                population=population,
                square_norm=LATENT_PRIOR,
            ),
        ),
        distance="scaled_l2",
        reads_gray=variant == "strong",
        prior=FaceGenerator(source=prior, crop=crop),
    )
