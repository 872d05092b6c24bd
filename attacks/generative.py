"""Attacks that draw with a face generator: presets of the engine, by the name of their paper."""

from fedaudit.attacks.engine import LocalSteps, MatchingAttack, Unknown
from fedaudit.attacks.learned.unmasking import Unmasking
from fedaudit.attacks.priors.generator import FaceGenerator
from fedaudit.attacks.stage import Stage
from fedaudit.attacks.varies import FeatureMaps, Latent, Pixels
from fedaudit.attacks.weights import GeneratorWeights, UntrainedWeights

LATENT_PRIOR = 1e-3
"""Weight of |z|²/dim, which keeps latent vectors where the generator was trained."""

UNMASK_STEPS = 1500
"""See `learned.unmasking`."""

SOLVER_DAMPING = 1e-3
"""First damping of Gauss–Newton, relative."""

Crop = tuple[float, float, float, float]


def gan_inversion(
    *,
    candidates: int = 128,
    latent_steps: int = 20,
    stages: tuple[int, ...] = (3,),
    stage_steps: int = 40,
    pixel_steps: int = 150,
    pixel_lr: float = 0.05,
    solve_steps: int = 0,
    rounds: int = 5,
    total_variation: float = 0.3,
    entry: bool = True,
    prior: str = "face_gan",
    crop: Crop | None = None,
    local_steps: LocalSteps = "start",
    restarts: int = 1,
    unknown: Unknown = "joint",
    unmask_steps: int = UNMASK_STEPS,
    seconds: float | None = None,
) -> MatchingAttack:
    """Search a face generator for the faces that explain the update, then leave its range.

    Liu et al. (ICFTIC 2021): generated images in place of free ones; in each round one image of the
    batch moves and the others are held, so that a round costs one image's step. Then, as in GIFD
    (Fang et al., ICCV 2023), the generator's inner feature maps become the variables, and at last
    the pixels. Beside the gradient's direction the match uses what the first fully connected layer
    gives away in closed form (`attacks.maps`). The stage with the least objective is kept.

    Args:
        candidates: Generated faces that are tried as a start.
        latent_steps: Steps an image in the generator's latent space.
        stages: Inner feature maps to search after the latent, in order; () stays in its range.
        stage_steps: Steps an image in each of them.
        pixel_steps: Steps an image in pixels at the end; 0 leaves the faces to the generator.
        pixel_lr: Peak step size in pixels, in units of the range [0, 1].
        solve_steps: Gauss–Newton steps an image at the very end, where its feature map is known
            (`attacks.maps`): exact, at about 2 CPU seconds a step for a gray 32×32 image.
        rounds: Sweeps over the batch in each stage; 0 moves all images at once.
        total_variation: Weight of the total variation in the last stage.
        entry: Use what the first fully connected layer gives away.
        prior: Where the generator comes from: "face_gan", a prior that `fedaudit prior train` wrote
            (.safetensors), a TorchScript or torch.export file, or `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1];
            None keeps what the generator says is a face crop.
        local_steps: How several local steps are met, as in `engine.MatchingAttack`.
        restarts: Independent starts, searched side by side; the one with the least match is kept.
        unknown: How a head that stays on the device is met, as in `engine.MatchingAttack`.
        unmask_steps: Steps of training the network that undoes the masks of mixtures (InstaHide);
            once for all targets, about 0.1 CPU seconds each at 32×32.
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
    if solve_steps:
        plan.append(
            Stage(
                varies=Pixels(start="previous", box=False),
                steps=solve_steps,
                lr=SOLVER_DAMPING,
                optimizer="gauss_newton",
            )
        )
    return MatchingAttack(
        stages=tuple(plan),
        angle=True,
        entry=entry,
        prior=FaceGenerator(source=prior, crop=crop),
        local_steps=local_steps,
        restarts=restarts,
        unknown=unknown,
        unmasking=Unmasking(steps=unmask_steps),
        seconds=seconds,
    )


def liu_2021(
    *,
    steps: int = 300,
    lr: float = 0.1,
    rounds: int = 5,
    prior: str = "face_gan",
    crop: Crop | None = None,
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


def gias(
    *,
    latent_steps: int = 300,
    weight_steps: int = 150,
    restarts: int = 2,
    total_variation: float = 1e-3,
    prior: str = "face_gan",
    crop: Crop | None = None,
) -> MatchingAttack:
    """Search the latent space, then the generator's own weights for each image.

    Jeon et al. (NeurIPS 2021): Adam at 3e-2 on the latent from several starts, then at 1e-3 on the
    weights. The restart with the least objective goes on.

    Args:
        latent_steps: Steps in the latent space.
        weight_steps: Steps of the weights.
        restarts: Starts in the latent space.
        total_variation: Weight of the total variation.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Latent(candidates=16),
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
        prior=FaceGenerator(source=prior, crop=crop),
    )


def ggl(
    *,
    generations: int = 500,
    population: int | None = 50,
    spread: float = 0.5,
    prior: str = "face_gan",
    crop: Crop | None = None,
) -> MatchingAttack:
    """Generative gradient leakage: the latent space by CMA-ES, without derivatives.

    Li et al. (CVPR 2022). The distance adapts to clipping (`scaled_l2`).

    Args:
        generations: Of CMA-ES.
        population: Candidates a generation; left out, 4 + 3·ln(dimension).
        spread: First standard deviation, in units of the latent's own.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Latent(candidates=16),
                steps=generations,
                lr=spread,
                optimizer="cma_es",
                population=population,
                square_norm=LATENT_PRIOR,
            ),
        ),
        distance="scaled_l2",
        prior=FaceGenerator(source=prior, crop=crop),
    )


def gifd(
    *,
    latent_steps: int = 100,
    stages: tuple[int, ...] = (1, 2, 3, 4),
    stage_steps: int = 75,
    ball: float = 0.5,
    restarts: int = 2,
    total_variation: float = 1e-3,
    prior: str = "face_gan",
    crop: Crop | None = None,
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
        stages=(latent, *inner),
        restarts=restarts,
        prior=FaceGenerator(source=prior, crop=crop),
    )


def gion(
    *,
    steps: int = 300,
    lr: float = 0.01,
    width: int = 32,
    total_variation: float = 1e-3,
    restarts: int = 1,
) -> MatchingAttack:
    """An untrained network draws the images, its weights are searched: no faces from elsewhere.

    Jeon et al. (NeurIPS 2021, section 4.3), after the deep image prior (Ulyanov et al. 2018).

    Args:
        steps: Optimization steps.
        lr: Peak learning rate of the weights.
        width: Channels of the network's finest scale.
        total_variation: Weight of the total variation.
        restarts: Independent starts.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=UntrainedWeights(width=width),
                steps=steps,
                lr=lr,
                total_variation=total_variation,
            ),
        ),
        restarts=restarts,
    )
