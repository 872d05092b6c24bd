"""Zeros of an update: those that its network leaves by itself, and those that a defense made.

A dead unit (ReLU, max pooling) leaves its row and its bias zero, and its column in the next layer.
So zeros alone say nothing: what a defense leaves out shows where backpropagation has numbers.

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.models.facenet import FaceNet

MISSED = 0.15
"""Share of units that train without a bias, or the reverse, from which on entries are missing."""
FEWEST_UNITS = 8
"""Units from which on that says something."""
FEWEST = 4
"""Rows and columns with numbers from which on a matrix says something."""
MANY_ROWS = 256
"""Rows of a matrix that are compared."""
PRODUCT = 1e-4
"""Relative rest up to which they count as multiples of one row."""
SMALLEST = 0.02
"""Least magnitude that was kept, in units of the median of them, above which the largest were."""
ENOUGH = 500
"""Magnitudes from which on it is no chance that there are no smaller ones."""
SAMPLE = 100_000
"""Magnitudes that are sorted."""
MASKED_COLUMNS = 0.05
"""Share of columns from which on a layer counts as masked whose inputs are never zero."""
MASKED_LIVE = 0.3
"""The same of inputs that are zero now and then, among those that were not for generic images."""
GENERIC = 8
"""Images by which it is seen which inputs those are."""

Tensors = Mapping[str, Tensor]


def zeros_of(tensors: Tensors) -> float:
    """Share of entries that are exactly zero."""
    total = sum(v.numel() for v in tensors.values())
    return sum(int((v == 0).sum()) for v in tensors.values()) / max(1, total)


def is_cut(tensors: Tensors) -> tuple[bool, bool]:
    """Whether small magnitudes are missing, which gradients have down to nothing; and for sure.

    What one image's pixels leave of a layer has no others than they have, and does not count.
    """
    flat = [v.flatten() for v in tensors.values() if not is_product(v)]
    rest = torch.cat(flat).abs() if flat else torch.empty(0)
    rest = rest[rest > 0]
    if not len(rest):
        return False, False
    many = len(rest) >= ENOUGH
    if len(rest) > SAMPLE:
        rest = rest[torch.randint(len(rest), (SAMPLE,), generator=_generator())]
    return float(torch.quantile(rest, 0.001)) > SMALLEST * float(rest.median()), many


def is_product(value: Tensor) -> bool:
    """Whether a matrix is that of one image: its rows are multiples of what enters the layer."""
    if value.dim() != 2:
        return False
    rows = value[value.any(1)][:MANY_ROWS].double()
    if len(rows) < 2:
        return False
    first = rows[0] / rows[0].norm()
    rest = rows - (rows @ first)[:, None] * first
    return float(rest.norm()) < PRODUCT * float(rows.norm())


def misses_entries(tensors: Tensors, count: int) -> bool:
    """Whether entries are missing that no dead unit explains."""
    misses = units = 0
    for weight, bias in _with_bias(tensors):
        rows, shifts = weight.flatten(1).any(1) if weight.dim() > 1 else weight != 0, bias != 0
        # A row of weights may be lost with its inputs; scale and shift of a norm are not.
        misses += int((rows & ~shifts).sum())
        misses += int((shifts & ~rows).sum()) if weight.dim() == 1 else 0
        units += int((rows | shifts).sum()) if weight.dim() == 1 else int(rows.sum())
    if units >= FEWEST_UNITS and misses > MISSED * units:
        return True
    return any(_is_scattered(v, count) for v in tensors.values() if v.dim() == 2)


def _with_bias(tensors: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and biases of the same units: `[D, …]` and `[D]`."""
    for name, weight in tensors.items():
        before, weight_name, after = name.rpartition("weight")
        bias = tensors.get(f"{before}bias{after}") if weight_name else None
        if bias is not None and weight.dim() and bias.shape == weight.shape[:1]:
            yield weight, bias


def _is_scattered(matrix: Tensor, count: int) -> bool:
    """Whether zeros of a fully connected layer's gradient `[D, F]` lie in no blocks.

    N images' gradient is a sum of N products: a row is zero where all images are that its unit
    lives for, so that there are no more than 2^N − 1 kinds of rows.
    """
    mask = matrix != 0
    mask = mask[mask.any(1)][:MANY_ROWS]
    mask = mask[:, mask.any(0)]
    rows, columns = mask.shape
    if min(rows, columns) < FEWEST or bool(mask.all()):
        return False
    keys = torch.randint(2**30, (columns,), generator=_generator()).to(matrix.device).double()
    kinds = len(set((mask.double() @ keys).tolist()))  # sums of whole numbers, exact below 2⁵³
    return kinds > max(rows / 2, 2.0**count - 1)


def masked_share(
    network: FaceNet, tensors: Tensors, image: tuple[int, int, int], count: int
) -> float | None:
    """Share of masked columns of the first fully connected layer; None where dead units explain it.

    Soteria zeroes what the chosen features are multiplied with (Sun et al., CVPR 2021). It does not
    choose features that are zero, so that these come on top. `network` has the broadcast weights,
    `tensors` the update with the layer that the map enters, `[D, F]`.
    """
    mask = tensors[network.first_fc_name].flatten(1).any(0)
    names = list(tensors)
    place = names.index(network.first_fc_name)
    around = (*names[:place], f"{network.first_fc_name.removesuffix('weight')}bias")
    frozen = not any(
        bool(tensors[n].any()) for n in (*around, network.first_fc_name) if n in tensors
    )
    if bool(mask.all()) or frozen:
        return None
    before = names[max(0, place - 1)]
    if tensors[before].shape == mask.shape:  # a fully connected layer's bias
        must = tensors[before] != 0
        dead = 1 - float(must.double().mean())
        least = MASKED_COLUMNS
    else:
        # Neither black nor white, so that pixels count as live.
        images = 0.05 + 0.9 * smooth_noise(GENERIC, image, _generator())
        with torch.no_grad():
            live = network.features(images.to(next(network.parameters()))) != 0
        must = live.all(0).to(mask.device)
        dead = float((1 - live.double().mean(0)).pow(count).mean())
        least = MASKED_COLUMNS if bool(must.all()) else MASKED_LIVE
    missing = float((must & ~mask).sum()) / max(1, int(must.sum()))
    if missing <= least:
        return None
    most = 1 - 1 / len(mask)  # one column is always sent
    return min(most, max(0.0, 1 - float(mask.double().mean()) - dead))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
