"""Photos mixed with others of the client, and pixels turned into their negative at random."""

from dataclasses import dataclass

from fedaudit.core.client import ClientStep
from fedaudit.defenses.gradient_transforms import Replayed
from fedaudit.defenses.mixing import half_normal, mixing, with_others
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class InstaHide:
    """Intra-InstaHide: mix photos of the client, then flip the sign of random values.

    Huang et al. (ICML 2020, arXiv 2010.02772). Coefficients are sizes of normal numbers over their
    sum, none above `largest`, as in the authors' code; signs are flipped on [-1, 1], as networks
    see images, which turns x in [0, 1] into 1 − x. A network is tested on plain photos. The pool is
    all photos of the client, with the round's own first, and each is mixed anew in every round.
    Refuses DP-SGD beside it, whose unit is one image. Guarantee: none, it is a heuristic: Carlini
    et al. (IEEE S&P 2021, arXiv 2011.05315) rebuild photos from the mixed images alone, which sizes
    (the sign mask leaves |x|) give away, once photos occur in several of them.

    Args:
        parts: k, photos in each image, ≥ 2.
        largest: Largest coefficient, in [1.05/k, 1].
    """

    parts: int = 4
    largest: float = 0.65

    def __post_init__(self) -> None:
        require(self.parts >= 2, "parts must be at least 2", self.parts)
        require(
            1.05 / self.parts <= self.largest <= 1,
            "largest must lie in [1.05/parts, 1]",
            self.largest,
        )

    def __call__(self, step: ClientStep) -> ClientStep:
        """Mix and mask the photos that the step trains on."""
        return with_others(step, self.replay, self.parts, "instahide")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's images: the first `count` of them, mixed with all."""
        weights = half_normal(self.parts, self.largest)
        return Replayed(images=(mixing(self.parts, weights, made=count, flip=True),))

    keeps_claims = True
    facts = public_settings("instahide")
