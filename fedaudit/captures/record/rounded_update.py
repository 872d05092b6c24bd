"""An update as a recording in half precision keeps it: the change, in 16 bits.

Weights in 16 bits would be of no use: the change of a round is a thousandth of them, about what
rounding takes away. So their difference from the broadcast is kept, as a "delta". Buffers are a
hundredth of a network at most, and are not rounded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.half_precision import to_half
from fedaudit.captures.format.tensor_names import is_buffer, name_tensors
from fedaudit.captures.record.message_writer import each_ready


def round_update(
    tensors: Mapping[str, Any],
    kind: Kind,
    broadcast: Mapping[str, Tensor] | None,
    buffers: tuple[str, ...] | None,
    names: Sequence[str],
) -> tuple[dict[str, Tensor], dict[str, int]] | None:
    """The change that an update is in 16 bits, and the exponents; of one tensor after the other.

    Args:
        tensors: As they were sent.
        kind: What they are. "weights" become a "delta".
        broadcast: What the server had sent, under plain names.
        buffers: As in `Facts`.
        names: Of the tensors in order, for messages that only number them.

    Returns:
        None for what is kept as it was sent, because inspection must see it so or nothing is known
        from which it differs: whole numbers in place of fractions, NaN and infinity, names or
        shapes that the server did not send.

    Raises:
        UsageError: Something is no tensor, or has a type that no file can hold.
        CaptureError: The broadcast is damaged.
    """
    weights = kind == "weights"
    plain = {own: n for n, own in name_tensors({str(n): str(n) for n in tensors}, names).items()}
    result: dict[str, Tensor] = {}
    exponents: dict[str, int] = {}
    for name, tensor in each_ready(tensors):
        start = broadcast.get(plain[name]) if weights and broadcast else None
        if weights and (start is None or start.shape != tensor.shape):
            return None
        if is_buffer(plain[name], buffers):
            result[name] = tensor if start is None else tensor.double() - start.double()
            continue
        if not tensor.is_floating_point():
            return None
        change = tensor if start is None else tensor - start
        if change.dtype.itemsize <= 2:
            result[name] = change
        elif (half := to_half(change)) is None:
            return None
        else:
            result[name], exponents[name] = half
    return result, exponents
