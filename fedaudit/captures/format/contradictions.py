"""What the numbers of an update say against what is stated of it, in words."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.tensor_names import is_buffer

NEAR = 0.9
"""Cosine to the broadcast above which tensors are weights; those of an update are near 0."""
# Through a MobileNetV2, in training mode: tests/captures/test_contradictions.py. Not told are some
# twenty steps of AdamW, which come near 3, and steps on gradients so small that Adam's epsilon
# counts; nor can noise, of 3 and 1, be taken for steps.
EVEN, ALIKE = 2.8, 2.0
"""Kurtosis of a layer's numbers, and ratio of the layers' sizes (of the ninth to the first tenth),
below which an optimizer has brought each number to one size."""
# Adam's steps of an iResNet-18 at 112 px, fresh, have 1.00 to 1.2 and ratios of 2.9 to 4.8, as some
# layers' gradients are near its epsilon; SGD's never have less than 3.0 (told_optimizers.py).
SHARP, ALIKE_IF_SHARP = 1.5, 6.0
"""The same where numbers are hardly more than signs, which no gradient's are."""
ONE_SIZE = 1.1
"""The same where numbers have few sizes: first steps of Adagrad have, and quantized changes."""
LEVELS, ROUNDED, SAMPLE = 64, 1e-5, 4096
"""Different sizes of numbers, by their tensor's largest, up to which a change may be quantized;
relative difference of two that are one, as differences of weights are rounded; numbers of a tensor
to look at."""
FEW, LAYERS = 256, 4
"""Numbers of a tensor below which its kurtosis says little; layers below which their likeness does:
one of two, after steps of SGD on four photos, looks even (`tests/attacks/small_networks.py`)."""


def against(update: Mapping[str, Tensor], broadcast: Mapping[str, Tensor]) -> tuple[float, float]:
    """Cosine to the broadcast, and the norm of the difference over the broadcast's norm."""
    dot = ours = theirs = apart = 0.0
    for name, tensor in update.items():
        if is_buffer(name) or not tensor.is_floating_point():
            continue
        a, b = tensor.double().flatten(), broadcast[name].double().flatten()
        dot += float(a @ b)
        ours += float(a @ a)
        theirs += float(b @ b)
        apart += float((a - b) @ (a - b))
    scale = (ours * theirs) ** 0.5
    return (dot / scale if scale else 0.0), (apart / theirs) ** 0.5 if theirs else float("inf")


def near_text(cosine: float, ratio: float) -> str:
    """How near `against` finds tensors to be."""
    return f"cosine to the broadcast {cosine:.4f}, difference {ratio:.2g} of its norm"


def like_weights(kind: Kind, cosine: float, ratio: float) -> str:
    """That what is stated as a change looks like weights; "" where it does not."""
    if kind == "weights" or cosine <= NEAR:
        return ""
    return f"stated as {kind}, but it looks like weights: {near_text(cosine, ratio)}"


def evened_out(update: Mapping[str, Tensor]) -> bool:
    """Whether a change is as large in every layer, and nearly so in every number.

    So are steps of optimizers that divide each number by its own size, as Adam does; those of SGD
    differ by layer as gradients do. What has one size to the last digit is signs, and no step; what
    has few of them may be quantized, and its layers must be the more alike.
    """
    kurtoses, sizes, ends, levels = [], [], list[float](), set[float]()
    for tensor in update.values():
        values = tensor.detach().double().flatten()
        values = values[values != 0].abs()
        if len(values) >= FEW:
            square = values.square().mean()
            kurtoses.append(float(values.pow(4).mean() / square**2))
            sizes.append(float(square.sqrt()))
            ends += [float(values.min()), float(values.max())]
            some = values[:: max(len(values) // SAMPLE, 1)]
            levels |= set((some / (ROUNDED * some.max())).round().tolist())
    if not ends or min(ends) > (1 - ROUNDED) * max(ends):
        return False
    return are_even(float(np.median(kurtoses)), sizes, quantized=len(levels) <= LEVELS)


def are_even(kurtosis: float, sizes: Sequence[float], *, quantized: bool = False) -> bool:
    """The same of numbers in units of their layer's size, and of these sizes, which are not 0.

    Where numbers may be quantized, layers must be of one size.
    """
    if len(sizes) < LAYERS:
        return False
    low, high = np.quantile(sizes, (0.1, 0.9))
    alike = ALIKE_IF_SHARP if kurtosis < SHARP else ALIKE
    return bool(kurtosis < EVEN and high < (ONE_SIZE if quantized else alike) * low)


def like_adaptive_steps(optimizer: str | None) -> str:
    """That a change that is `evened_out` is not of SGD, which is stated, or taken for stated."""
    said = "no optimizer is stated, which is read as SGD"
    if optimizer is not None:
        said = f"optimizer = {optimizer!r} is stated"
    return (
        "the change has one size in all layers, as steps of Adam, RMSprop or Adagrad have, or "
        f"masks, and those of SGD have not; {said}: attacks are weak if that is wrong"
    )


def counted_back(counters: Sequence[float]) -> str:
    """That counters of training steps went backwards; "" where they did not.

    Training counts up, so that an end before its beginning is the other file. Counters with
    fractions were averaged, clipped or drowned in noise, and say nothing.

    Args:
        counters: By how many steps each moved.
    """
    back = sorted({round(-moved) for moved in counters if moved < -0.5})
    if not back or not all(abs(moved - round(moved)) < 1e-4 for moved in counters):
        return ""
    steps = f"{back[0]:,}" if len(back) == 1 else f"{back[0]:,} to {back[-1]:,}"
    return f"batch-norm counters went backwards by {steps}: are broadcast and update swapped?"
