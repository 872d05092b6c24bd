"""Noise on the whole update, without clipping."""

from dataclasses import dataclass
from typing import Literal

from fedaudit.defenses.acts import Replayed, add_noise
from fedaudit.defenses.sending import on_sending
from fedaudit.types import DefenseFacts
from fedaudit.verbs import ClientStep


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Add Gaussian noise to every number that is sent.

    Zhu et al. (NeurIPS 2019, section 5.1) and Sun et al. (CVPR 2021) compare with it. Guarantee:
    none, it is a heuristic: nothing bounds how far one image moves the update.

    Args:
        std: Standard deviation. Of "entry": in units of what is sent; of "norm": expected L2 norm
            of the noise over all parameters, in units of the update's own norm. ≥ 0.
        of: What `std` is in units of.
    """

    std: float = 0.1
    of: Literal["entry", "norm"] = "entry"

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std must be ≥ 0, not {self.std}")
        if self.of not in ("entry", "norm"):
            raise ValueError(f"of must be 'entry' or 'norm', not {self.of!r}")

    def __call__(self, step: ClientStep) -> ClientStep:
        """Add noise to what the step shares."""
        return on_sending(step, self.replay(1).mean)

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with noise of its own."""
        del count
        return Replayed(mean=(add_noise(self.std, relative=self.of == "norm"),))

    def facts(self) -> DefenseFacts:
        """The scale is public, the draw is not."""
        return DefenseFacts("gaussian_noise", {"std": self.std, "of": self.of})
