"""Attacks that draw with a face generator: presets of the engine, by the name of their paper."""

from fedaudit.attacks.engine import MatchingAttack, Stage
from fedaudit.attacks.priors.generator import DEFAULT_CROP, FaceGenerator
from fedaudit.attacks.varies import FeatureMaps, Latent, Pixels

LATENT_PRIOR = 1e-3
"""Weight of |z|²/dim, which keeps latent vectors where the generator was trained."""

Crop = tuple[float, float, float, float]


def gan_inversion(
    *,
    candidates: int = 128,
    latent_steps: int = 20,
    stages: tuple[int, ...] = (3,),
    stage_steps: int = 40,
    pixel_steps: int = 150,
    pixel_lr: float = 0.05,
    rounds: int = 5,
    total_variation: float = 0.3,
    entry: bool = True,
    prior: str = "face_gan",
    crop: Crop = DEFAULT_CROP,
    seconds: float | None = None,
) -> MatchingAttack:
    """Search a face generator for the faces that explain the update, then leave its range.

    Liu et al. (ICFTIC 2021): generated images in place of free ones; in each round one image of the
    batch moves and the others are held, so that a round costs one image's step. Then, as in GIFD
    (Fang et al., ICCV 2023), the generator's inner feature maps become the variables, and at last
    the pixels. Beside the gradient's direction the match uses what the first fully connected layer
    gives away in closed form (`attacks.entry_layer`). The stage with the least objective is kept.

    Args:
        candidates: Generated faces that are tried as a start.
        latent_steps: Steps an image in the generator's latent space.
        stages: Inner feature maps to search after the latent, in order; () stays in its range.
        stage_steps: Steps an image in each of them.
        pixel_steps: Steps an image in pixels at the end; 0 leaves the faces to the generator.
        pixel_lr: Peak step size in pixels, in units of the range [0, 1].
        rounds: Sweeps over the batch in each stage; 0 moves all images at once.
        total_variation: Weight of the total variation in the last stage.
        entry: Use what the first fully connected layer gives away.
        prior: Where the generator comes from: "face_gan", a TorchScript or torch.export file, or
            `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1].
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    plan = [
        Stage(
            varies=Latent(candidates=candidates),
            steps=latent_steps,
            lr=0.1,
            rounds=rounds,
            square_norm=LATENT_PRIOR,
        )
    ]
    plan += [
        Stage(varies=FeatureMaps(stage=stage), steps=stage_steps, lr=0.05, rounds=rounds)
        for stage in stages
    ]
    if pixel_steps:
        plan.append(
            Stage(
                varies=Pixels(start="previous"),
                steps=pixel_steps,
                lr=pixel_lr,
                optimizer="signed_adam",
                rounds=rounds,
                total_variation=total_variation,
            )
        )
    return MatchingAttack(
        stages=tuple(plan),
        angle=True,
        entry=entry,
        prior=FaceGenerator(source=prior, crop=crop),
        seconds=seconds,
    )


def liu_2021(
    *,
    steps: int = 300,
    lr: float = 0.1,
    rounds: int = 5,
    prior: str = "face_gan",
    crop: Crop = DEFAULT_CROP,
) -> MatchingAttack:
    """Inverting gradients with a GAN, round-wise: the images are always the generator's outputs.

    Liu et al. (ICFTIC 2021): each round updates one image of the batch with the others held, then
    the next; and again. Cosine distance, no pixels outside the generator's range.

    Args:
        steps: Steps an image.
        lr: Peak learning rate of the latent vector.
        rounds: Sweeps over the batch; 0 moves all images at once.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Latent(candidates=1),
                steps=steps,
                lr=lr,
                rounds=rounds,
                square_norm=LATENT_PRIOR,
            ),
        ),
        prior=FaceGenerator(source=prior, crop=crop),
    )
