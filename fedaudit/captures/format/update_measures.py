"""What one update looks like in numbers: one pass over it, in pieces that fit the cache."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer, name_tensors

PIECE = 1 << 18
"""Numbers in a piece: 1 MB of float32."""
_SAMPLE = 256
"""Values that are looked at more closely, a tensor."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A parameter's change (or gradient).

    Attributes:
        size: Numbers in it.
        norm: L2.
        zeros: Numbers that are exactly 0.
        idle: Numbers in rows and columns (channels of outputs and inputs) that are all 0, as units
            that no image activates leave them; looked for only where half of the numbers are 0.
    """

    size: int
    norm: float
    zeros: int
    idle: int = 0

    @property
    def rms(self) -> float:
        """Root mean square of a number."""
        return self.norm / math.sqrt(self.size) if self.size else 0.0


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured on one update; norms are of the change that it means for the model.

    Attributes:
        norm: L2 over parameters; NaN where the update holds NaN or infinity.
        norm_of_all: L2 over all that was sent: parameters, running statistics and counters.
        layers: By name; parameters only.
        buffers: Names of batch-norm buffers that were sent.
        counters: Changes of batch-norm counters, one a layer.
        negative_variances: Running variances that are negative.
        unfit: What does not fit the broadcast: (name, reason).
        not_finite: Names with NaN or infinity.
        sampled: How many values of the change were looked at more closely, over all layers.
        kurtosis: Excess kurtosis of these, each over its layer's root mean square: 0 for a normal
            distribution, 3 and more for gradients, which are mostly small; 0 of none.
        distinct: Distinct values among the largest layer's sampled ones, and how many those are.
        half: Whether all sampled values are of 16 bits, although 32 were sent.
        whole: Names of parameters that are whole numbers where the server sent fractions.
    """

    norm: float
    norm_of_all: float
    layers: Mapping[str, Layer]
    buffers: tuple[str, ...]
    counters: tuple[float, ...]
    negative_variances: tuple[str, ...]
    unfit: tuple[tuple[str, str], ...]
    not_finite: tuple[str, ...]
    sampled: int
    kurtosis: float
    distinct: tuple[int, int]
    half: bool
    whole: tuple[str, ...]

    @property
    def size(self) -> int:
        """Numbers in all parameters."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def zeros(self) -> float:
        """Share of parameters' numbers that are exactly 0."""
        return sum(layer.zeros for layer in self.layers.values()) / max(1, self.size)


def measure(
    tensors: Mapping[str, Tensor],
    kind: Kind | None,
    broadcast: Mapping[str, Tensor] | None,
    buffers: tuple[str, ...] | None = None,
    names: Sequence[str] = (),
    sign: int = 1,
) -> Measures:
    """Measure one update.

    Args:
        tensors: What was sent, in the order in which it was.
        kind: What they are.
        broadcast: What the server sent, under plain names; None where it is not known, so that
            "weights" are measured as they are.
        buffers: Names of buffers; None where those of batch norm are all.
        names: Of the tensors in order, for messages that only number them.
        sign: −1 where they are the negative of `kind`.
    """
    weights = kind == "weights"
    layers: dict[str, Layer] = {}
    sent_buffers: dict[str, float] = {}
    counters, negative, unfit, whole = [], [], [], []
    samples: list[Tensor] = []
    largest: tuple[int, _Change | None] = (0, None)
    with torch.no_grad():
        for name, own in name_tensors({name: name for name in tensors}, names).items():
            tensor = tensors[own]
            before = None if broadcast is None else broadcast.get(name)
            if broadcast is not None and before is None:
                unfit.append((name, "the server sent no tensor of that name"))
                continue
            if before is not None and before.shape != tensor.shape:
                shapes = f"{list(tensor.shape)}, and the server sent {list(before.shape)}"
                unfit.append((name, f"its shape is {shapes}"))
                continue
            change = _Change(tensor, before if weights else None)
            if is_buffer(name, buffers):
                sent_buffers[name] = change.layer().norm
                if f".{name}".endswith(COUNTER) and tensor.numel() == 1:
                    counters.append(steps_counted(tensor, before, 0 if weights else sign))
                if name.endswith("running_var") and tensor.is_floating_point():
                    variance = tensor if weights else _moved(before, sign * tensor, kind)
                    if variance is not None and bool((variance < 0).any()):
                        negative.append(name)
            elif not tensor.is_floating_point():
                if before is None or before.is_floating_point():
                    whole.append(name)
            else:
                layers[name] = layer = change.layer()
                if math.isfinite(layer.norm) and layer.norm and layer.size >= 16:
                    values = change.sample(_SAMPLE)
                    samples.append(values / layer.rms)
                    if layer.size > largest[0]:
                        largest = (layer.size, change)
        raw = largest[1].sample(16 * _SAMPLE) if largest[1] else torch.empty(0)
        raw = raw[raw != 0]
    norms = {name: layer.norm for name, layer in layers.items()}
    norm = math.sqrt(sum(value**2 for value in norms.values()))
    rest = sum(value**2 for value in sent_buffers.values() if math.isfinite(value))
    sample = torch.cat(samples) if samples else torch.empty(0)
    return Measures(
        norm=norm,
        norm_of_all=math.sqrt(norm**2 + rest),
        layers=layers,
        buffers=tuple(sent_buffers),
        counters=tuple(counters),
        negative_variances=tuple(negative),
        unfit=tuple(unfit),
        not_finite=tuple(n for n, v in {**norms, **sent_buffers}.items() if not math.isfinite(v)),
        sampled=len(sample),
        kurtosis=_excess_kurtosis(sample) if samples else 0.0,
        distinct=(len(torch.unique(raw)), len(raw)),
        half=len(raw) > 0 and torch.equal(raw, raw.half().float()),
        whole=tuple(whole),
    )


def _excess_kurtosis(values: Tensor) -> float:
    """0 for a normal distribution; 3 and more for gradients, which are mostly small."""
    deviations = values.double() - values.double().mean()
    variance_squared = float(deviations.pow(2).mean()) ** 2
    return float(deviations.pow(4).mean()) / variance_squared - 3 if variance_squared else -3.0


def _moved(before: Tensor | None, change: Tensor, kind: Kind | None) -> Tensor | None:
    """Where a buffer is after a change; None where that is not known."""
    return before.double() + change.double() if kind == "delta" and before is not None else None


def steps_counted(counter: Tensor, before: Tensor | None, sign: int) -> float:
    """By how many steps a counter moved; it is a change of that sign, or with 0 the counter.

    A server that averages counters sends fractions; clients cut them to whole numbers and count on.
    """
    value = float(counter)
    if before is None or not math.isfinite(value):
        return value
    start = float(before)
    if not math.isfinite(start):
        return start
    end = start + sign * value if sign else value
    if sign and not end.is_integer():
        return sign * value
    return end - (math.floor(start) if end.is_integer() else start)


@dataclass(frozen=True)
class _Change:
    """A tensor, or its difference from another, that is never held as a whole."""

    tensor: Tensor
    before: Tensor | None

    def values(self, start: int, stop: int, step: int = 1) -> Tensor:
        """Some of the numbers, in float32 (counters in float64)."""
        window = slice(start, stop, step)
        values = self.tensor.reshape(-1)[window]
        dtype = torch.float32 if values.is_floating_point() else torch.float64
        values = values.to(dtype)
        if self.before is None:
            return values
        return values - self.before.reshape(-1)[window].to(dtype)

    def layer(self) -> Layer:
        """Norm and zeros, piece by piece."""
        size, squares, zeros = self.tensor.numel(), 0.0, 0
        for start in range(0, size, PIECE):
            values = self.values(start, start + PIECE)
            squares += float(torch.dot(values, values))
            # Twice as fast as torch.count_nonzero.
            zeros += values.numel() - int(np.count_nonzero(values.numpy() != 0))
        norm = math.sqrt(squares) if squares >= 0 else squares
        return Layer(size=size, norm=norm, zeros=zeros, idle=self._idle(size, zeros))

    def _idle(self, size: int, zeros: int) -> int:
        """Numbers in rows and columns without a number other than 0."""
        shape = self.tensor.shape
        if len(shape) < 2 or not size or 2 * zeros < size:
            return 0
        wide = size // shape[0]
        step = max(1, PIECE // max(1, wide))
        rows, columns = 0, torch.zeros(shape[1], dtype=torch.bool)
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            nonzero = self.values(start * wide, stop * wide).view(stop - start, shape[1], -1) != 0
            nonzero = nonzero.any(2)
            rows += int(nonzero.any(1).sum())
            columns |= nonzero.any(0)
        return size - rows * int(columns.sum()) * (wide // shape[1])

    def sample(self, count: int) -> Tensor:
        """Up to `count` values, evenly spread."""
        size = self.tensor.numel()
        return self.values(0, size, max(1, size // count)).float()
