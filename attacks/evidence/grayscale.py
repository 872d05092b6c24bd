"""Whether the images behind an update are gray, from the first convolution's gradient."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

TOLERANCE = 1e-3
"""Relative difference of channels that count as equal."""
FEWEST = 4
"""Entries that must have been sent of two channels to compare them."""
NOISE = 1.1
"""Difference of channels, in units of the noise's, up to which they count as equal."""
SIGNAL = 1.2
"""Size of what channels share, in units of the noise's, from which on they can be compared."""


def is_gray(
    model: nn.Module,
    target: Mapping[str, Tensor],
    *,
    sparse: bool = False,
    noise: Callable[[str], float] | None = None,
) -> bool:
    """Equal channels in every image make the first convolution's gradient equal over them.

    Under noise (a standard deviation by parameter) they are equal as far as it allows, where
    anything is left to be told apart: of photos whose colors are fainter than the noise, it leaves
    their brightness only. Where entries are missing (`sparse`), those that were sent of all
    channels count.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            gradient = target.get(f"{name}.weight")
            if gradient is None or gradient.shape[1] < 2 or module.groups != 1:
                return False
            if sparse:
                return _alike(gradient)
            common = gradient.mean(1, keepdim=True)
            spread = (gradient - common).norm()
            if noise is not None:
                channels, std = gradient.shape[1], noise(f"{name}.weight")
                chance = std * (common.numel() * (channels - 1)) ** 0.5
                loud = common.norm() > SIGNAL * std * (common.numel() / channels) ** 0.5
                return bool(loud and spread < NOISE * chance)
            return bool(spread < TOLERANCE * gradient.norm())
    return False


def _alike(gradient: Tensor) -> bool:
    """Whether channels agree in all entries that were sent of two of them."""
    channels = gradient.shape[1]
    apart, loud, both = 0.0, 0.0, 0
    for one in range(channels):
        for two in range(one + 1, channels):
            sent = (gradient[:, one] != 0) & (gradient[:, two] != 0)
            apart += float(((gradient[:, one] - gradient[:, two]) * sent).square().sum())
            loud += float((gradient[:, one] * sent).square().sum())
            both += int(sent.sum())
    return both >= FEWEST and apart < TOLERANCE**2 * loud
