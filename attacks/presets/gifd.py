"""GIFD: the latent space, then inner feature maps in L1 balls (Fang et al., ICCV 2023)."""

from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import FeatureMaps, Latent


def gifd(
    *,
    latent_steps: int = 100,
    stages: tuple[int, ...] = (1, 2, 3, 4),
    stage_steps: int = 75,
    ball: float = 0.5,
    restarts: int = 2,
    total_variation: float = 1e-3,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
) -> MatchingAttack:
    """Generator's latent first, then one inner feature map after another, each in an L1 ball.

    Fang et al. (ICCV 2023): the learning rate rises over 5 % and falls as a cosine over 75 %; the
    stage with the least objective is kept. Unlike the public code, the best restart goes on, not
    the last.

    Args:
        latent_steps: Steps in the latent space.
        stages: Inner feature maps, in order.
        stage_steps: Steps in each of them.
        ball: Radius of the L1 ball, in units of the start's L1 norm.
        restarts: Starts in the latent space.
        total_variation: Weight of the total variation.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    latent = Stage(
        varies=Latent(candidates=16),
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
            lr=0.05,
            schedule="gifd",
            total_variation=total_variation,
        )
        for stage in stages
    ]
    return MatchingAttack(
        stages=(latent, *inner), restarts=restarts, prior=FaceGenerator(source=prior, crop=crop)
    )
