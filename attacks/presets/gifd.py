"""GIFD: the latent space, then inner feature maps in L1 balls (Fang et al., ICCV 2023)."""

from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.presets.published import STANDARDIZED, Variant, with_paper_settings
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import FeatureMaps, Latent


@with_paper_settings(  # of its code's configuration for StyleGAN2 and FFHQ
    latent_steps=1000,
    stage_steps=1000,
    stage_lr=0.1,
    restarts=4,
    candidates=1,
    total_variation=STANDARDIZED * 1e-4,
)
def gifd(
    *,
    variant: Variant = "strong",
    latent_steps: int = 100,
    stages: tuple[int, ...] = (1, 2, 3, 4),
    stage_steps: int = 75,
    stage_lr: float = 0.05,
    ball: float = 0.5,
    restarts: int = 2,
    total_variation: float = 1e-3,
    candidates: int = 16,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
) -> MatchingAttack:
    """Generator's latent first, then one inner feature map after another, each in an L1 ball.

    Fang et al. (ICCV 2023): the learning rate rises over 5 % and falls as a cosine over 75 %; the
    stage with the least objective is kept. Unlike the public code, the best restart goes on, not
    the last.

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated.
        latent_steps: Steps in the latent space.
        stages: Inner feature maps, in order.
        stage_steps: Steps in each of them.
        stage_lr: Peak learning rate in each of them.
        ball: Radius of the L1 ball, in units of the start's L1 norm.
        restarts: Starts in the latent space.
        total_variation: Weight of the total variation.
        candidates: Generated faces that are tried as a start; the papers start at random.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    latent = Stage(
        varies=Latent(candidates=candidates),
        steps=latent_steps,
        lr=0.1,
        schedule="gifd",
        square_norm=LATENT_PRIOR,
        total_variation=total_variation,
        keep=1,
    )
    inner = [
        Stage(
            varies=FeatureMaps(stage=stage, ball=ball),
            steps=stage_steps,
            lr=stage_lr,
            schedule="gifd",
            total_variation=total_variation,
        )
        for stage in stages
    ]
    return MatchingAttack(
        stages=(latent, *inner),
        restarts=restarts,
        reads_gray=variant == "strong",
        prior=FaceGenerator(source=prior, crop=crop),
    )
