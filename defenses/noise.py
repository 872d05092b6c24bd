"""Noise on the whole update, without clipping."""

from dataclasses import dataclass
from typing import Literal

from fedaudit.defenses.gradient_transforms import Noise, Replayed
from fedaudit.defenses.on_update import send_replayed
from fedaudit.defenses.settings import public_settings, require

Unit = Literal["entry", "norm"]


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
    of: Unit = "entry"

    def __post_init__(self) -> None:
        _refuse(self.std, self.of)

    __call__ = send_replayed
    keeps_claims = True
    facts = public_settings("gaussian_noise")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with noise of its own."""
        return Replayed(mean=(Noise(self.std, self.of == "norm"),))


@dataclass(frozen=True, kw_only=True)
class LaplaceNoise:
    """Add Laplace noise to every number that is sent.

    Zhu et al. (NeurIPS 2019, section 5.1) compare Gaussian and Laplace noise of equal variance.
    Guarantee: none, it is a heuristic: without a bound on the update's L1 norm this is no Laplace
    mechanism.

    Args:
        std: Standard deviation, √2 times the Laplace scale b. Of "entry": in units of what is sent;
            of "norm": expected L2 norm of the noise over all parameters, in units of the update's
            own norm. ≥ 0.
        of: What `std` is in units of.
    """

    std: float = 0.1
    of: Unit = "entry"

    def __post_init__(self) -> None:
        _refuse(self.std, self.of)

    __call__ = send_replayed

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with noise of its own."""
        return Replayed(mean=(Noise(self.std, self.of == "norm", "laplace"),))

    keeps_claims = True
    facts = public_settings("laplace_noise")


def _refuse(std: float, of: str) -> None:
    require(std >= 0, "std must be ≥ 0", std)
    require(of in ("entry", "norm"), "of must be 'entry' or 'norm'", repr(of))
