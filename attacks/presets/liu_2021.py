"""Inverting gradients with a GAN, round-wise (Liu et al., ICFTIC 2021)."""

from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, CropEdges, FaceGenerator
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import Latent


def liu_2021(
    *,
    steps: int = 300,
    lr: float = 0.1,
    rounds: int = 5,
    prior: str = "face_gan",
    crop: CropEdges | None = None,
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
