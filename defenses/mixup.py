"""Photos mixed with others of the client."""

from dataclasses import dataclass

from fedaudit.core.client import ClientStep
from fedaudit.defenses.gradient_transforms import Replayed
from fedaudit.defenses.mixing import dirichlet, mixing, with_others
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """Train on weighted sums of photos, with labels mixed alike.

    mixup (Zhang et al., ICLR 2018, arXiv 1710.09412) as a defense. Each photo of a round is mixed
    once with others of its client, of the round or not: so a batch of one is mixed as well.
    Coefficients are Beta(α, α), for more than two photos Dirichlet(α, …, α). Guarantee:
    none, it is a heuristic. A mixed image still shows its faces; Huang et al. (NeurIPS 2021,
    arXiv 2112.00059) take mixtures apart by attacks that know the coefficients, and the head's
    gradient of one mixed image shows them. Refuses DP-SGD beside it, whose unit is one image.

    Args:
        alpha: α > 0; small values leave most images nearly alone.
        parts: Photos in each image, ≥ 2.
    """

    alpha: float = 1.0
    parts: int = 2

    def __post_init__(self) -> None:
        require(self.alpha > 0, "alpha must be > 0", self.alpha)
        require(self.parts >= 2, "parts must be at least 2", self.parts)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Mix the photos that the step trains on."""
        return with_others(step, self.replay, self.parts, "mixup")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's images: the first `count` of them, mixed with all."""
        return Replayed(images=(mixing(self.parts, dirichlet(self.alpha), made=count),))

    keeps_claims = True
    facts = public_settings("mixup")
