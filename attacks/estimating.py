"""Defenses read off an update that nobody explained: names and settings as the registry has them.

Each estimator is a function of what was sent (and of the network, whose shape is public). What
leaves no mark that could not be a gradient's own, is not claimed: clipping changes a length that
nobody knows, so the length itself is the only bound that can be given (`clip_bound`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaudit.attacks.averaging import deviation, rounds_of
from fedaudit.attacks.replaying import is_installed
from fedaudit.models.adopted import adopt
from fedaudit.models.facenet import FaceNet
from fedaudit.models.zoo import build
from fedaudit.types import DefenseFacts, Observation

MANY_ZEROS = 0.3
"""Share of zeros from which on an update counts as pruned: dead units leave some as well."""
SMALLEST = 0.02
"""Least magnitude that was kept, in units of the median of them, above which the largest were."""
MASKED_COLUMNS = 0.05
"""Share of zero columns from which on the layer that the map enters counts as masked."""
FEW_LEVELS = 256
"""Distinct magnitudes of a large parameter up to which it counts as quantized."""
WHOLE = 1e-2
"""Distance from whole numbers that rounding in single precision explains."""
BUCKETS = (None, 8192, 4096, 2048, 1024, 512, 256, 128, 64)
"""Sizes of quantization buckets that are tried, largest first."""
LARGE = 500
"""Entries from which on a parameter says something about levels."""
EVEN_ROWS = 0.25
"""Relative spread of rows' lengths up to which what is left of a layer is noise."""
AUDIBLE = 1e-3
"""Noise below this share of a layer's root mean square is rounding, or drift of local steps."""

Tensors = Mapping[str, Tensor]


def estimate(seen: Observation) -> tuple[DefenseFacts, ...]:
    """What the update shows of the defenses behind it, in the order in which they acted.

    Args:
        seen: What the server saw; its `defense` is not read.
    """
    update = seen.update
    if update is None or not update.tensors:
        return ()
    tensors = {n: v for n, v in update.tensors.items() if v.is_floating_point() and v.numel()}
    found: list[tuple[str, Mapping[str, float | None]]] = []
    if is_signs(tensors):
        found.append(("sign", {}))
    elif (rounding := quantization(tensors)) is not None:
        found.append(("qsgd", rounding))
    else:
        entry = entry_of(seen)
        masked = masked_columns(tensors[entry]) if entry in tensors else None
        rest = {n: v for n, v in tensors.items() if n != entry} if masked is not None else tensors
        if masked is not None and zeros_of(rest) <= MANY_ZEROS:
            found.append(("soteria", {"pruned": float((~masked).float().mean())}))
        elif (pruned := sparsity(tensors)) is not None:
            found.append(pruned)
        std = deviation(rounds_of(seen)) if not found else None
        std = std or noise_scale(tensors, entry, seen.batch_size or 1)
        if std is not None:
            found.append(("gaussian_noise", {"std": std}))
    return tuple(DefenseFacts(name, settings, estimated=True) for name, settings in found)


def clip_bound(tensors: Tensors) -> float:
    """The update's own L2 norm: the largest bound that it can have been clipped to (Li 2022)."""
    return float(torch.stack([v.square().sum() for v in tensors.values()]).sum().sqrt())


def is_signs(tensors: Tensors) -> bool:
    """Whether all that is not zero has one magnitude."""
    rest = _magnitudes(tensors)
    return len(rest) > 1 and float(rest.max()) <= float(rest.min()) * (1 + 1e-5)


def zeros_of(tensors: Tensors) -> float:
    """Share of entries that are exactly zero."""
    total = sum(v.numel() for v in tensors.values())
    return sum(int((v == 0).sum()) for v in tensors.values()) / max(1, total)


def sparsity(tensors: Tensors) -> tuple[str, dict[str, float]] | None:
    """How many entries are missing, and whether the largest were kept or random ones."""
    zeros = zeros_of(tensors)
    if zeros <= MANY_ZEROS:
        return None
    rest = _magnitudes(tensors)
    if not len(rest):
        return None
    least = float(
        torch.quantile(
            rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))[:100_000]],
            0.001,
        )
    )
    chosen = least > SMALLEST * float(rest.median())
    name = "top_k" if chosen or not is_installed("random_pruning") else "random_pruning"
    return name, {"pruned": zeros}


def quantization(tensors: Tensors) -> dict[str, float | None] | None:
    """QSGD's levels and bucket; None where magnitudes are not multiples of few steps.

    Buckets show: within one of the right size, or a divisor of it, all magnitudes are multiples of
    the least. QSGD does not send the norm ‖v‖₂ itself, only steps of ‖v‖₂/s, so s is estimated: the
    levels of a bucket add up to s·‖v‖₁/‖v‖₂ on average, which is about 0.7·s·√(its entries) for
    numbers between Gaussian and heavy-tailed. Good to a factor of 2.
    """
    large = [v.flatten() for v in tensors.values() if v.numel() >= LARGE]
    if not large:
        return None
    for bucket in BUCKETS:
        levels = [_levels(flat, bucket) for flat in large]
        if any(found is None for found in levels):
            continue
        sums = torch.cat(
            [
                found.sum(1) / (0.7 * size**0.5)
                for found, size in ((f, f.shape[1]) for f in levels if f is not None)
                if len(found)
            ]
        )
        sums = sums[sums > 0]
        if len(sums):
            return {"levels": max(1, round(float(sums.median()))), "bucket": bucket}
    return None


def _levels(flat: Tensor, bucket: int | None) -> Tensor | None:
    """Multiples of the least magnitude in each bucket, `[buckets, size]`; None where they are not.

    The last bucket, which may be shorter, is left out.
    """
    size = min(bucket or len(flat), len(flat))
    rows = flat[: len(flat) // size * size].view(-1, size).abs().double()
    step = torch.where(rows > 0, rows, torch.inf).amin(1, keepdim=True)
    ratio = torch.where(rows > 0, rows / step, 0.0)
    level = ratio.round()
    off = float((ratio - level).abs().max())
    few = int(level.max()) <= FEW_LEVELS
    # Chance does not make all of thousands of numbers whole; two in a bucket are no evidence.
    told = float((rows > 0).double().sum(1).mean()) >= 2
    return level if off < WHOLE and few and told else None


def masked_columns(gradient: Tensor) -> Tensor | None:
    """`[F]` which columns of a layer's gradient were sent, where whole columns are missing.

    Soteria zeroes what the chosen features are multiplied with (Sun et al., CVPR 2021).
    """
    matrix = gradient.flatten(1)
    sent = (matrix != 0).any(0)
    missing = 1 - float(sent.float().mean())
    if not MASKED_COLUMNS < missing < 1:
        return None
    # In what remains there are no gaps: else single entries were pruned.
    gaps = float((matrix[:, sent] == 0).float().mean())
    return sent if gaps < MASKED_COLUMNS else None


def noise_scale(tensors: Tensors, entry: str = "", count: int = 1) -> float | None:
    """Standard deviation of independent noise on every entry; None where none is audible.

    Of the layer that the maps enter, whose gradient has rank N, what is left behind the first N
    singular values is noise and nothing else. Without it: the quietest large parameter, where all
    rows are equally loud and as many entries are small as in noise.
    """
    if entry in tensors:
        matrix = tensors[entry].flatten(1).double()
        if count < min(matrix.shape) // 2:
            left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
            rest = matrix - (left[:, :count] * sizes[:count]) @ right[:count]
            free = (matrix.shape[0] - count) * (matrix.shape[1] - count)
            std = float(rest.square().sum().div(free).sqrt())
            loud = float(matrix.square().mean().sqrt())
            if std < AUDIBLE * loud:
                return None
            return std if _even(rest) else None
    spread = {n: _robust(v) for n, v in tensors.items() if v.numel() >= LARGE}
    for name in sorted(spread, key=lambda n: spread[n])[:1]:
        rows = tensors[name].flatten(1).double()
        std = float(rows.square().mean().sqrt())
        # Gradients have heavy tails: their robust spread is a small part of the plain one.
        if spread[name] > 0.6 * std and _even(rows):
            return spread[name]
    return None


def entry_of(seen: Observation) -> str:
    """Name of the weights that the feature map enters; "" where the network has none."""
    if seen.image_shape is None:
        return ""
    network = adopt(build(seen.model, seen.before), seen.image_shape)
    return network.entry_name if isinstance(network, FaceNet) else ""


def _magnitudes(tensors: Tensors) -> Tensor:
    flat = torch.cat([v.flatten() for v in tensors.values()]).abs()
    return flat[flat > 0]


def _robust(value: Tensor) -> float:
    """Standard deviation of normal numbers, from the median: large entries do not count."""
    return float(value.abs().median()) / 0.6745


def _even(rows: Tensor) -> bool:
    """Whether all rows are equally loud, as far as chance allows."""
    lengths = rows.square().mean(1).sqrt()
    expected = 2.0 / rows.shape[1] ** 0.5
    return float(lengths.std() / lengths.mean()) < max(EVEN_ROWS, float(2 * expected))
