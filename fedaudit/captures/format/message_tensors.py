"""What a message means: its tensors against the broadcast, as an attack takes them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fedaudit.captures.format.message_header import Message
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer
from fedaudit.core.errors import CaptureError
from fedaudit.core.shared import Buffers, Shared, Update


def start(broadcast: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the server sent, as `Observation.before` has it: float32, no counters."""
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in broadcast.items()
        if not f".{name}".endswith(COUNTER)
    }


def check_fits(path: Path, sent: Mapping[str, Tensor], broadcast: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are no update of the model that was broadcast.

    Raises:
        CaptureError: A name that the server did not send, another shape, NaN or infinity, or whole
            numbers where the server sent fractions.
    """
    for name, tensor in sent.items():
        if name not in broadcast:
            first = next(iter(broadcast), "")
            raise CaptureError(
                path,
                f"the server sent no tensor of that name (its first is {first!r}): an update of "
                "another model, or with renamed layers (`fedaudit audit --rename OLD=NEW`)",
                key=name,
            )
        if tensor.shape != broadcast[name].shape:
            raise CaptureError(
                path,
                f"its shape is {list(tensor.shape)}, and the server sent "
                f"{list(broadcast[name].shape)}: another number of classes, or another model",
                key=name,
            )
        if tensor.is_floating_point():
            check_finite(path, name, tensor)
        elif broadcast[name].is_floating_point() and not is_buffer(name):
            raise CaptureError(
                path,
                "it holds whole numbers where the server sent fractions: quantized, masked or "
                "encrypted, so that no attack can read it as it is",
                key=name,
            )


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        CaptureError: There is one.
    """
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CaptureError(path, "it holds NaN or infinity", key=name)


def shared_of(
    message: Message,
    sent: Mapping[str, Tensor],
    broadcast: Mapping[str, Tensor],
    *,
    buffers: Collection[str] | None = None,
    over: float = 1.0,
) -> tuple[Shared, ...]:
    """The update and the batch-norm buffers of a message.

    Args:
        message: Its header.
        sent: A client's tensors that fit the broadcast (`check_fits`), under plain names.
        broadcast: What the server sent, under plain names.
        buffers: Names of buffers; None where those of batch norm are all.
        over: Σ w_k of an aggregate: weights are compared with the broadcast so many times.

    Returns:
        `Update` and, where they were sent, `Buffers`.
    """
    update, statistics = {}, {}
    for name, tensor in sent.items():
        before = broadcast[name].to(torch.float64) if name in broadcast else None
        if is_buffer(name, buffers):
            if is_buffer(name) and before is not None and message.kind != "gradient":
                value = tensor.to(torch.float64)
                if message.kind == "delta":
                    value = over * before + message.sign * value
                if f".{name}".endswith(COUNTER):
                    # Averaged counters are fractions, which clients cut to whole numbers.
                    steps = (value - before.floor()).round().clamp_min(0)
                    statistics[name] = steps.to(torch.int64)
                else:
                    statistics[name] = value.float()
        elif tensor.is_floating_point():
            if message.kind == "weights" and before is not None:
                update[name] = (tensor.to(torch.float64) - over * before).float()
            else:
                update[name] = message.sign * tensor.float()
    kind: Literal["gradient", "delta"] = "gradient" if message.kind == "gradient" else "delta"
    shared: tuple[Shared, ...] = (Update(kind, update, message.examples or None),)
    return (*shared, Buffers(statistics, message.examples or None)) if statistics else shared
