"""Whether the images behind an update are gray, from the first convolution's gradient."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

TOLERANCE = 1e-3
"""Relative difference of channels that count as equal."""
FEWEST = 4
"""Entries that must have been sent of two channels to compare them."""
# Chosen on 40 photos of the synthetic set, of which the faintest had 0.11 and 5 % less than 0.13;
# benchmarks/grayness.py counts errors on others.
FAINTEST = 0.12
"""Color of the faintest color photos: what channels differ by, as a share of what they share."""
SURE = 1.645
"""Standard errors by which channels must differ less than the faintest colors would: 5 %."""


def is_gray(
    model: nn.Module,
    target: Mapping[str, Tensor],
    *,
    sparse: bool = False,
    noise: Callable[[str], float] | None = None,
) -> bool:
    """Equal channels in every image make the first convolution's gradient equal over them.

    Under noise (a standard deviation by parameter) it is an estimate: gray is what differs less
    than the faintest colors would, at a level of 5 %. Noise that would hide those colors leaves the
    question open, and the answer is no. Where entries are missing (`sparse`), those that were sent
    of all channels count.
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
                return _surely_gray(gradient, noise(f"{name}.weight"))
            return bool(spread < TOLERANCE * gradient.norm())
    return False


def _surely_gray(gradient: Tensor, std: float) -> bool:
    """Whether noise of this standard deviation leaves no room for colors in `[O, C, h, w]`."""
    channels = gradient.shape[1]
    common = gradient.mean(1, keepdim=True)
    free = common.numel() * (channels - 1)  # degrees of freedom of what channels differ by
    variance = std**2
    energy = channels * float(common.square().sum()) - variance * common.numel()
    apart = float((gradient - common).square().sum()) - variance * free
    faintest = FAINTEST**2 * max(0.0, energy)
    error = SURE * (2 * variance**2 * free + 4 * variance * faintest) ** 0.5
    return bool(faintest > error and apart < faintest - error)


def _alike(gradient: Tensor) -> bool:
    """Whether channels agree in all entries that were sent of two of them."""
    channels = gradient.shape[1]
    apart, loud, both = 0.0, 0.0, 0
    for one in range(channels):
        for two in range(one + 1, channels):
            both_sent = (gradient[:, one] != 0) & (gradient[:, two] != 0)
            apart += float(((gradient[:, one] - gradient[:, two]) * both_sent).square().sum())
            loud += float((gradient[:, one] * both_sent).square().sum())
            both += int(both_sent.sum())
    return both >= FEWEST and apart < TOLERANCE**2 * loud
