"""GAN inversion, round-wise: a face generator is searched for the faces that explain the update."""

from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.search.image_priors import FACE_COLORS, MATCHING_COLOR_WEIGHTS
from fedaudit.attacks.search.local_steps import LocalSteps
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage, solving_stages
from fedaudit.attacks.search.surrogate_head import Unknown
from fedaudit.attacks.search.variables.latents import FeatureMaps, Latent
from fedaudit.attacks.search.variables.pixels import Pixels

# Set by hand; what it reaches is measured by benchmarks/mixture_bound.py.
UNMASK_STEPS = 1500
"""Of training the network that undoes masks, see `adaptive.unmasking`."""
SOLVER_DAMPING = 1e-3
"""First damping of Gauss–Newton, relative."""


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
    total_variation: float | None = None,
    first_fully_connected: bool = True,
    spans_first: bool = True,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
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
    gives away in closed form (`evidence.feature_maps`). The stage with the least objective is kept.

    Args:
        candidates: Generated faces that are tried as a start.
        latent_steps: Steps an image in the generator's latent space.
        stages: Inner feature maps to search after the latent, in order; () stays in its range.
        stage_steps: Steps an image in each of them.
        pixel_steps: Steps an image in pixels at the end; 0 leaves the faces to the generator.
        pixel_lr: Peak step size in pixels, in units of the range [0, 1].
        solve_steps: Gauss–Newton steps an image at the very end, where its feature map is known
            (`evidence.feature_maps`): exact, at about 2 CPU seconds a step for a gray 32×32 image.
        rounds: Sweeps over the batch in each stage; 0 moves all images at once.
        total_variation: Weight of the total variation in the last stage; None for what suits the
            size and color of the images.
        first_fully_connected: Use what the first fully connected layer gives away.
        spans_first: Where what layers' inputs span decides the images, as on most networks, search
            pixels by that first, as `subspace_matching` does, and only go on where that does not
            explain the update. Of one that noise or a defense has changed, known maps come first.
        prior: Where the generator comes from: "face_gan", a prior that `fedaudit prior train` wrote
            (.safetensors), a TorchScript or torch.export file, or `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1];
            None keeps what the generator says is a face crop.
        local_steps: How several local steps are met, as in `MatchingAttack`.
        restarts: Independent starts, searched side by side; the one with the least match is kept.
        unknown: How a head that stays on the device is met, as in `MatchingAttack`.
        unmask_steps: Steps of training the network that undoes the masks of mixtures (InstaHide);
            once for all targets, about 0.1 CPU seconds each at 32×32.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    latent = Stage(
        varies=Latent(candidates=candidates),
        steps=latent_steps,
        lr=0.1,
        rounds=rounds,
        square_norm=LATENT_PRIOR,
    )
    inner = [
        Stage(varies=FeatureMaps(stage=stage), steps=stage_steps, lr=0.05, rounds=rounds)
        for stage in stages
    ]
    pixels = Stage(
        varies=Pixels(start="previous"),
        steps=pixel_steps,
        lr=pixel_lr,
        optimizer="signed_adam",
        rounds=rounds,
        total_variation=total_variation,
        color_weights=MATCHING_COLOR_WEIGHTS,
    )
    solving = solving_stages(solve_steps, SOLVER_DAMPING)
    return MatchingAttack(
        stages=(latent, *inner, *([pixels] if pixel_steps else []), *solving),
        angle=True,
        first_fully_connected=first_fully_connected,
        spans_first=spans_first,
        face_colors=FACE_COLORS if spans_first else 0.0,
        prior=FaceGenerator(source=prior, crop=crop),
        local_steps=local_steps,
        restarts=restarts,
        unknown=unknown,
        unmasking=Unmasking(steps=unmask_steps),
        seconds=seconds,
    )
