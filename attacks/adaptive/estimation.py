"""Defenses read off an update that nobody explained: names and settings as the registry has them.

A name says what was done to the numbers, not who did it: DP-SGD's noise is `gaussian_noise`, what
dual pruning left is `top_k` or `random_pruning`. What leaves no mark that could not be a gradient's
own is not claimed: clipping changes a length that nobody knows, so the length itself is the only
bound that can be given (`clip_bound`).

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.defense_replay import is_installed
from fedaudit.attacks.adaptive.sparsity import (
    is_cut,
    is_product,
    masked_share,
    misses_entries,
    zeros_of,
)
from fedaudit.attacks.evidence.labels.leading_svd import leading_svd
from fedaudit.attacks.evidence.round_averaging import deviation, rounds_of
from fedaudit.attacks.training.schedule import without_decay
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.models.batch_norm import replay_mode
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import adopt

MANY_ZEROS = 0.3
"""Share of zeros from which on an update may count as pruned."""
# One photo of p01 in evaluation mode, one step of Adam at 0.001 through a trained ResNet-18: 0.47
# and 4.7e-5; batches have fewer zeros.
ZEROS_OF_ADAM, LONGER = 0.85, 1e-3
"""The same of one step of Adam, set by hand; by what share steps may be longer than the learning
rate, by rounding."""
FEW_LEVELS = 256
"""Distinct magnitudes of a large parameter up to which it counts as quantized."""
WHOLE = 1e-2
"""Distance from whole numbers that rounding in single precision explains."""
BUCKETS = (None, 8192, 4096, 2048, 1024, 512, 256, 128, 64)
"""Sizes of quantization buckets that are tried, largest first."""
STEPS = (1, 2, 3, 4)
"""Steps that the least magnitude of a bucket may be."""
PROBED = 8192
"""Entries of a parameter that are looked at before all are."""
LARGE = 500
"""Entries from which on a parameter says something about levels."""
EVEN_ROWS = 0.25
"""Relative spread of rows' lengths up to which what is left of a layer is noise."""
TAKEN = 0.1
"""Share of a row's noise that must be left to judge it."""
SMALLEST_NOISE = 1e-3
"""Noise below this share of a layer's root mean square is rounding, or drift of local steps."""

Tensors = Mapping[str, Tensor]


def estimate(seen: Observation) -> tuple[DefenseFacts, ...]:
    """What the update shows of the defenses behind it, in the order in which they acted."""
    update = seen.update
    if update is None or not update.tensors:
        return ()
    tensors = {n: v for n, v in update.tensors.items() if v.is_floating_point() and v.numel()}
    if update.kind == "delta" and _is_a_step_of_adam(tensors, seen):
        return ()
    defenses: list[tuple[str, Mapping[str, float | None]]] = []
    if is_signs(tensors):
        defenses.append(("sign", {}))
    elif (rounding := quantization(tensors)) is not None:
        defenses.append(("qsgd", rounding))
    else:
        count = seen.batch_size or 1
        network = network_of(seen)
        first_fc = network.first_fc_name if network is not None else ""
        if (pruning := sparsity(tensors, count)) is not None:
            defenses.append(pruning)
        else:
            if network is not None and seen.image_shape is not None and first_fc in tensors:
                share = masked_share(network, tensors, seen.image_shape, count)
                defenses += [("soteria", {"pruned": share})] if share is not None else []
            std = deviation(rounds_of(seen)) if not defenses else None
            std = std or noise_scale(tensors, first_fc, count)
            defenses += [("gaussian_noise", {"std": std})] if std is not None else []
    return tuple(DefenseFacts(name, settings, estimated=True) for name, settings in defenses)


def _is_a_step_of_adam(tensors: Tensors, seen: Observation) -> bool:
    """Whether nothing contradicts that this is one step of Adam, as it was.

    Such steps are even by themselves, and zero where a weight is too coarse for them: neither says
    anything of noise or pruning. Noise makes steps longer than the learning rate; pruning shows
    where it leaves out nearly all.
    """
    training = seen.training
    if training is None or not training.by_adam or training.steps != 1 or not tensors:
        return False
    # AdamW is often told to decay some parameters only: each is as it was, or decayed besides.
    undecayed = without_decay(tensors, seen.before, training)
    longest = max(
        min(float(value.abs().max()), float(undecayed[name].abs().max()))
        for name, value in tensors.items()
    )
    return longest <= (1 + LONGER) * training.lr and zeros_of(tensors) < ZEROS_OF_ADAM


def clip_bound(tensors: Tensors) -> float:
    """The update's own L2 norm: the largest bound that it can have been clipped to (Li 2022)."""
    return float(torch.stack([v.square().sum() for v in tensors.values()]).sum().sqrt())


def is_signs(tensors: Tensors) -> bool:
    """Whether all that is not zero has one magnitude."""
    rest = _magnitudes(tensors)
    return len(rest) > 1 and float(rest.max()) <= float(rest.min()) * (1 + 1e-5)


def sparsity(tensors: Tensors, count: int) -> tuple[str, dict[str, float]] | None:
    """How many entries are zero, and whether the largest were kept; None where none is missing."""
    zeros = zeros_of(tensors)
    if zeros <= MANY_ZEROS:
        return None
    cut, many = is_cut(tensors)
    if not (cut and many) and not misses_entries(tensors, count):
        return None
    random = not cut and is_installed("random_pruning")
    return "random_pruning" if random else "top_k", {"pruned": zeros}


def quantization(tensors: Tensors) -> dict[str, float | None] | None:
    """QSGD's levels and bucket; None where magnitudes are not multiples of few steps.

    Buckets show: within one of the right size, or a divisor of it, all magnitudes are multiples of
    the least. QSGD does not send the norm ‖v‖₂ itself, only steps of ‖v‖₂/s, so s is estimated: the
    levels of a bucket add up to s·‖v‖₁/‖v‖₂ on average, which is about 0.7·s·√(its entries) for
    numbers between Gaussian and heavy-tailed. Good to a factor of 2.
    """
    large = [v.flatten() for v in tensors.values() if v.numel() >= LARGE]
    if not large or any(is_product(v) for v in tensors.values() if v.numel() >= LARGE):
        return None
    for bucket in BUCKETS:
        if any(_levels(flat, bucket, PROBED) is None for flat in large):
            continue  # so is nearly every gradient recognized, at little cost
        levels = [_levels(flat, bucket) for flat in large]
        if any(level is None for level in levels):
            continue
        sums = torch.cat(
            [
                level.sum(1) / (0.7 * size**0.5)
                for level, size in ((f, f.shape[1]) for f in levels if f is not None)
                if len(level)
            ]
        )
        sums = sums[sums > 0]
        if len(sums):
            return {"levels": max(1, round(float(sums.median()))), "bucket": bucket}
    return None


def _levels(flat: Tensor, bucket: int | None, most: int | None = None) -> Tensor | None:
    """Multiples of the least magnitude in each bucket, `[buckets, size]`; None where they are not.

    Of at most `most` entries; a shorter last bucket is left out.
    """
    size = min(bucket or len(flat), len(flat))
    rows = flat[: len(flat) // size * size].view(-1, size)
    rows = rows[: max(1, (most or len(flat)) // size)].abs()
    step = torch.where(rows > 0, rows, torch.inf).amin(1, keepdim=True).double()
    rows = rows[:, :most].double()
    ratio = torch.where(rows > 0, rows / step, 0.0)
    # The least of few magnitudes may be several steps.
    off = torch.stack([_fraction(k * ratio) for k in STEPS])
    level = (ratio * torch.tensor(STEPS).to(ratio)[off.lt(WHOLE).int().argmax(0)][:, None]).round()
    few = int(level.max()) <= FEW_LEVELS
    # Chance does not make all of thousands of numbers whole; two in a bucket are no evidence.
    occupancy = (rows > 0).sum(1)
    occupancy = occupancy[occupancy > 0].double()
    sure = most is not None or not len(occupancy) or float(occupancy.mean()) >= 2
    return level if float(off.amin(0).max()) < WHOLE and few and sure else None


def _fraction(value: Tensor) -> Tensor:
    """`[n]`, how far the rows' entries are from whole numbers at most."""
    return (value - value.round()).abs().amax(1)


def noise_scale(tensors: Tensors, first_fc: str = "", count: int = 1) -> float | None:
    """Standard deviation of independent noise on every entry; None where none shows.

    Of the layer that the maps enter, whose gradient has rank N, what is left behind the first N
    singular values is noise and nothing else. Without it: the smallest large parameter, where all
    rows and all columns are equally long and as many entries are small as in noise. (Rows alone, or
    columns, are so where upstream gradients are, or what enters a layer.)
    """
    if first_fc in tensors:
        matrix = tensors[first_fc].flatten(1).double()
        if count < min(matrix.shape) // 2:
            left, sizes, right = leading_svd(matrix, count)
            rest = matrix - (left * sizes) @ right
            free = (matrix.shape[0] - count) * (matrix.shape[1] - count)
            std = float(rest.square().sum().div(free).sqrt())
            signal = float(matrix.square().mean().sqrt())
            if std < SMALLEST_NOISE * signal:
                return None
            # What is taken away of noise with the signal, differs from row to row.
            shares = 1 - left.square().sum(1, keepdim=True)
            within = shares[:, 0] > TAKEN
            return std if _even((rest / shares.clamp_min(TAKEN).sqrt())[within]) else None
    spread = {n: _robust(v) for n, v in tensors.items() if v.numel() >= LARGE and v.dim() > 1}
    for name in sorted(spread, key=lambda n: spread[n])[:1]:
        rows = tensors[name].flatten(1).double()
        std = float(rows.square().mean().sqrt())
        # Gradients have heavy tails: their robust spread is a small part of the plain one.
        if spread[name] > 0.6 * std and _even(rows) and _even(rows.mT):
            return spread[name]
    return None


def network_of(seen: Observation) -> FaceNet | None:
    """The network in the parts that attacks know; None where it has none."""
    if seen.image_shape is None:
        return None
    network = replay_mode(adopt(build(seen.model, seen.before), seen.image_shape), seen.mode)
    return network if isinstance(network, FaceNet) else None


def _magnitudes(tensors: Tensors) -> Tensor:
    flat = torch.cat([v.flatten() for v in tensors.values()]).abs()
    return flat[flat > 0]


def _robust(value: Tensor) -> float:
    """Standard deviation of normal numbers, from the median: large entries do not count."""
    return float(value.abs().median()) / 0.6745


def _even(rows: Tensor) -> bool:
    """Whether all rows are equally long, as far as chance allows; one row alone tells nothing."""
    if len(rows) < 2:
        return False
    lengths = rows.square().mean(1).sqrt()
    spread = 2.0 / rows.shape[1] ** 0.5
    return float(lengths.std() / lengths.mean()) < max(EVEN_ROWS, float(2 * spread))
