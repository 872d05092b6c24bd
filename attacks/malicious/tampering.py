"""Does a broadcast model look as if a server had tampered with it?

Each check knows one published manipulation by a trace that neither a random start nor honest
training leaves; training that diverges leaves some of them, too (jumps, one odd row, values that
are not finite). A server that knows these checks can avoid them.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

# Set by hand: tests/attacks/test_tampering.py has what they catch and what they let pass.
SAME_DIRECTION = 1 - 1e-5
"""Cosine from which two rows count as proportional; random and trained rows stay below 0.99."""
LEAST_WIDTH = 16
"""Rows must have that many weights: short ones are proportional by chance."""
LEAST_ROWS = 8
SHARE = 0.25
"""Share of a layer's rows that must bear a mark."""
IDENTITY = 0.999
"""Share of a filter's absolute weight in its one largest tap."""
OUTLIER = 25.0
"""How far out, in units of the others' typical distance from the median, one value must lie."""
JUMP = 1.0
"""Change of a tensor since the previous broadcast, relative to its length."""
TURN = 0.5
"""Cosine to the previous broadcast below which a tensor was replaced rather than trained."""


@dataclass(frozen=True)
class Trace:
    """One thing in a broadcast model that honest training does not leave.

    Attributes:
        check: Such as "proportional_rows".
        parameter: Name of the tensor, as it stands in the file.
        sentence: What it is and what it may be for, in plain words.
        evidence: Numbers behind it.
    """

    check: str
    parameter: str
    sentence: str
    evidence: Mapping[str, float] = field(default_factory=dict)


def scan(
    model: Mapping[str, Tensor], previous: Mapping[str, Tensor] | None = None
) -> tuple[Trace, ...]:
    """Look for traces of the known manipulations, in the order of the checks; changes nothing.

    `model` are parameters and buffers by name, as broadcast; integer tensors are skipped.
    `previous` is the broadcast before, or any model that the client trusts to have the right
    architecture and to lie a few rounds back.
    """
    floats = _weights(model)
    invalid = tuple(_not_finite(floats))
    sound = {n: t for n, t in floats.items() if bool(torch.isfinite(t).all())}
    traces = [trace for check in CHECKS for trace in check(sound)]
    if previous is not None:
        traces += _changed_architecture(model, previous)
        traces += _jumps(sound, _weights(previous))
    return (*invalid, *traces)


def _not_finite(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    for name, tensor in model.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            yield Trace(
                "not_finite",
                name,
                f"{bad} of {tensor.numel()} values are NaN or infinite: training on it gives "
                "nothing, and what comes back tells the server which inputs reached them.",
                {"values": bad, "of": tensor.numel()},
            )


def _proportional_rows(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Imprint (Fowl et al. 2022): every row measures the same thing. Fishing: equal head rows."""
    for name, matrix in _matrices(model):
        rows = _in_one_direction(matrix)
        if rows < max(LEAST_ROWS, SHARE * len(matrix)):
            continue
        yield Trace(
            "proportional_rows",
            name,
            f"{rows} of {len(matrix)} rows are multiples of one another. In a hidden layer they "
            "sort a batch into bins, from which single images are read (imprint); in a head they "
            "silence all classes but one (fishing).",
            {"rows": rows, "of": len(matrix)},
        )


def _ascending_biases(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Imprint: thresholds at the quantiles of the measurement."""
    for name, bias in model.items():
        if bias.dim() != 1 or len(bias) < 12:
            continue
        weight = model.get(re.sub(r"bias$", "weight", name))
        thresholds = bias
        if weight is not None and weight.dim() == 2 and len(weight) == len(bias):
            thresholds = bias / weight.norm(dim=1).clamp_min(1e-30)  # of rows of unit length
        steps = thresholds.diff()
        if not (bool((steps > 0).all()) or bool((steps < 0).all())):
            continue
        yield Trace(
            "ascending_biases",
            name,
            f"all {len(bias)} values lie in strict order, as thresholds do that cut a measurement "
            "of the images into bins (imprint).",
            {"values": len(bias), "first": float(thresholds[0]), "last": float(thresholds[-1])},
        )


def _half_negative_rows(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Trap weights (Boenisch et al. 2023): a half negative, the other the same but shorter."""
    for name, matrix in _matrices(model):
        width = matrix.shape[1]
        if len(matrix) < LEAST_ROWS or width < 64:
            continue
        half = width // 2
        below = (matrix < 0).sum(1) == (matrix > 0).sum(1)
        rows = matrix.sort(1).values
        ratios = rows[:, width - half :].flip(1) / -rows[:, :half].clamp_max(-1e-30)
        large = ratios[:, : half // 2]  # small weights drown in rounding
        level = large.median(1, keepdim=True).values
        alike = ((large - level).abs() < 1e-2 * level.abs()).float().mean(1) > 0.9
        hits = int((below & alike).sum())
        if hits < max(LEAST_ROWS, SHARE * len(matrix)):
            continue
        factor = float(level[below & alike].median())
        yield Trace(
            "half_negative_rows",
            name,
            f"in {hits} of {len(matrix)} rows the positive weights are the negative ones again, "
            f"times {factor:.3f}: rows that hardly any image activates, so that those it does can "
            "be read from the gradient (trap weights).",
            {"rows": hits, "of": len(matrix), "factor": factor},
        )


def _identity_filters(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Convolutions that only pass their input on, to a layer that gives it away."""
    for name, kernel in model.items():
        if kernel.dim() != 4 or kernel[0].numel() < 9 or kernel.shape[-1] < 2:
            continue
        sizes = kernel.flatten(1).abs()
        total = sizes.sum(1)
        passing = int(((sizes.amax(1) > IDENTITY * total) & (total > 0)).sum())
        if passing < max(2, SHARE * len(kernel)):
            continue
        yield Trace(
            "identity_filters",
            name,
            f"{passing} of {len(kernel)} filters have one weight and zeros beside it: they pass "
            "pixels on unchanged, to a layer from whose gradient they can be read.",
            {"filters": passing, "of": len(kernel)},
        )


def _odd_head(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Fishing (Wen et al. 2022): rows of the last layer zeroed, one class shifted or amplified."""
    for name, matrix in _matrices(model, least_rows=3):
        lengths = matrix.norm(dim=1)
        empty = int((lengths == 0).sum())
        if 2 <= empty < len(matrix) <= 2 * empty:  # a head that starts at zero has no other row
            yield Trace(
                "empty_rows",
                name,
                f"{empty} of {len(matrix)} rows are zero. In a head this keeps the images of these "
                "classes out of the gradient, and what is left shows the others (fishing).",
                {"rows": empty, "of": len(matrix)},
            )
        else:
            # Rows of classes that are trained on grow; ten times the median is another matter.
            yield from _odd_one_out(name, lengths, "row", 0.4 * float(lengths.median()))
        bias = model.get(re.sub(r"weight$", "bias", name))
        if bias is not None and name.endswith("weight") and bias.shape == lengths.shape:
            yield from _odd_one_out(re.sub(r"weight$", "bias", name), bias, "bias", 0.02)


def _odd_one_out(name: str, values: Tensor, what: str, typical: float) -> Iterator[Trace]:
    """At most a few values that lie far beyond all others; `typical` is their least spread."""
    if len(values) < 3:
        return
    middle = values.median()
    distance = (values - middle).abs()
    spread = float(distance.median())
    spread = max(spread, typical, 1e-30)  # equal values have none
    far = distance > OUTLIER * spread
    count = int(far.sum())
    if not 0 < count <= max(1, len(values) // 20):
        return
    worst = int(distance.argmax())
    yield Trace(
        f"odd_{what}",
        name,
        f"{what} {worst} lies {float(distance[worst]) / spread:.0f} times further from the median "
        "than is usual in this layer: shifting one class decides which images have a gradient "
        "(fishing).",
        {"index": worst, "value": float(values[worst]), "median": float(middle)},
    )


def _implausible_size(model: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Weights beyond any start or training."""
    for name, tensor in model.items():
        if tensor.dim() < 2:
            continue
        size = float(tensor.square().mean().sqrt())
        if size > 30:
            yield Trace(
                "implausible_size",
                name,
                f"its weights are {size:.3g} on (root mean square) average, where a trained "
                "network has well below 1: it saturates or amplifies what follows.",
                {"rms": size},
            )


def _changed_architecture(
    model: Mapping[str, Tensor], previous: Mapping[str, Tensor]
) -> Iterator[Trace]:
    """An inserted block, as imprint needs it."""
    for name in sorted(model.keys() - previous.keys()):
        yield Trace(
            "inserted",
            name,
            f"the previous broadcast had no such tensor (now {_size(model[name])}): a layer was "
            "put in. Blocks that give images away are inserted so.",
            {"values": model[name].numel()},
        )
    for name in sorted(previous.keys() - model.keys()):
        yield Trace("removed", name, "the previous broadcast had it, this one does not.")
    for name in sorted(model.keys() & previous.keys()):
        if model[name].shape != previous[name].shape:
            yield Trace(
                "reshaped", name, f"it was {_size(previous[name])} and is {_size(model[name])} now."
            )


def _before_norm(model: Mapping[str, Tensor]) -> set[str]:
    """Weights without a bias that are followed by scale and shift of as many channels."""
    names = list(model)
    return {
        name
        for name, scale, shift in zip(names, names[1:], names[2:], strict=False)
        if model[name].dim() > 2
        and scale.endswith(".weight")
        and shift == f"{scale.removesuffix('weight')}bias"
        and model[scale].shape == model[shift].shape == model[name].shape[:1]
    }


def _jumps(model: Mapping[str, Tensor], previous: Mapping[str, Tensor]) -> Iterator[Trace]:
    """What was replaced since the previous broadcast, rather than trained on.

    Weights in front of a normalization are passed over: it takes their scale away, so that the
    first honest steps of a fresh network may turn them anywhere (MobileFaceNet: by seven times
    their length, cosine 0.1).
    """
    free = _before_norm(model)
    for name, tensor in model.items():
        old = previous.get(name)
        if old is None or old.shape != tensor.shape or tensor.dim() < 2 or name in free:
            continue
        length = float(old.norm())
        if not (length > 0 and math.isfinite(length)):
            continue
        change = float((tensor - old).norm()) / length
        cosine = float(F.cosine_similarity(tensor.flatten(), old.flatten(), dim=0))
        if (change > JUMP and cosine < TURN) or change > 10 * JUMP:
            yield Trace(
                "jump",
                name,
                f"it changed by {change:.2f} times its own length since the previous broadcast "
                f"(cosine {cosine:.2f}): rounds of training move weights, they do not replace "
                "them.",
                {"change": change, "cosine": cosine},
            )


CHECKS: tuple[Callable[[Mapping[str, Tensor]], Iterator[Trace]], ...] = (
    _proportional_rows,
    _ascending_biases,
    _half_negative_rows,
    _identity_filters,
    _odd_head,
    _implausible_size,
)


def _matrices(
    model: Mapping[str, Tensor], least_rows: int = LEAST_ROWS
) -> Iterator[tuple[str, Tensor]]:
    """Fully connected weights that are large enough to say something."""
    for name, tensor in model.items():
        if tensor.dim() == 2 and len(tensor) >= least_rows and tensor.shape[1] >= LEAST_WIDTH:
            yield name, tensor


def _in_one_direction(matrix: Tensor) -> int:
    """Rows that are multiples of another row; without comparing all pairs, for heads are large."""
    lengths = matrix.norm(dim=1)
    unit = matrix[lengths > 0] / lengths[lengths > 0][:, None]
    if len(unit) < 2:
        return 0
    probe = torch.cos(torch.arange(unit.shape[1]) ** 2 + 1.0).to(unit)  # any direction does
    along = unit @ probe
    unit = unit * along.sign()[:, None]
    # Rows of one direction have one inner product with the probe, so they are neighbors.
    unit = unit[along.abs().argsort()]
    same = (unit[1:] * unit[:-1]).sum(1) > SAME_DIRECTION
    members = torch.zeros(len(unit), dtype=torch.bool, device=unit.device)
    members[1:] |= same
    members[:-1] |= same
    return int(members.sum())


def _weights(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    real = {n: t for n, t in model.items() if t.is_floating_point() and t.numel()}
    return {name: tensor.detach().to(torch.float32) for name, tensor in real.items()}


def _size(tensor: Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "one value"
