"""What the numbers of an update say against what is stated of it, in words."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.tensor_names import is_buffer

NEAR = 0.9
"""Cosine to the broadcast above which tensors are weights; those of an update are near 0."""


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
