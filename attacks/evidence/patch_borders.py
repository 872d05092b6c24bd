"""Which patches belong to the same photo: those that continue each other across their borders.

A transformer's tokens say what a patch holds and where it lies, and of which of the batch's photos
it is only by the little that attention adds. Photos themselves tell: colors hardly change from the
last row of pixels of a patch to the first row of the next. Jigsaw puzzles are solved so (Cho,
Avidan, Freeman, CVPR 2010); here the places are known, and each place has one patch a photo, so
that place after place an assignment (Kuhn, 1955) gives each photo the patch that fits what the
photo holds around it, until nothing moves (iterated conditional modes; Besag, 1986), from several
starts.
"""

from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

STEP = 0.3
"""Difference of two pixels, of 1 between black and white, from which on a border is an edge of what
is shown, and says no more."""
STARTS, MIXED = 8, 0.3
"""Starts, and the share of places that all but the first of them mix."""
SWEEPS = 30
"""Over all places, at most; some five are made."""

Borders = Mapping[tuple[int, int], Tensor]


def by_borders(images: Tensor, kernel: tuple[int, int], seed: int = 0) -> Tensor:
    """For each photo and place, the photo in which its patch lies now, `[N, P]`.

    The first photo keeps its name: what is told is which patches belong together. Every place's
    patches are taken once each; numbers are those of `images` where nothing fits better.

    Args:
        images: `[N, C, H, W]`, 0 black and 1 white, cut into patches without a rest.
        kernel: Height and width of a patch.
        seed: Of the starts.

    Example:
        >>> photos = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 1, 8, 8).clone()
        >>> photos[:, :, 4:, 4:] = photos[[1, 0, 2, 3], :, 4:, 4:]
        >>> by_borders(photos, (4, 4))[:, 3].tolist()
        [1, 0, 2, 3]
    """
    count, rows, columns = len(images), images.shape[2] // kernel[0], images.shape[3] // kernel[1]
    between = _borders(images.double().cpu(), kernel)
    neighbors: dict[int, list[int]] = {place: [] for place in range(rows * columns)}
    for one, two in between:
        neighbors[one].append(two)
    generator = torch.Generator().manual_seed(seed)
    still = torch.arange(count).expand(rows * columns, count)
    best, least = still, float("inf")
    for start in range(STARTS if count > 1 else 0):
        chosen = still.clone()
        for place in range(rows * columns):
            if start and torch.rand((), generator=generator) < MIXED:
                chosen[place] = torch.randperm(count, generator=generator)
        _sweep(chosen, between, neighbors, generator)
        total = sum(float(cost[chosen[a], chosen[b]].sum()) for (a, b), cost in between.items())
        if total < least:
            best, least = chosen, total
    return best.T


def _sweep(
    chosen: Tensor,
    between: Borders,
    neighbors: Mapping[int, list[int]],
    generator: torch.Generator,
) -> None:
    """Move patches `[P, N]` between photos, place after place, while borders fit better for it."""
    photos = torch.arange(chosen.shape[1])
    for _ in range(SWEEPS):
        moved = False
        for place in torch.randperm(len(chosen), generator=generator).tolist():
            cost = sum(
                (between[place, other][:, chosen[other]] for other in neighbors[place]),
                torch.zeros(len(photos), len(photos)).double(),
            )
            patches, owners = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
            better = torch.empty_like(photos)
            better[owners] = patches
            gain = cost[chosen[place], photos].sum() - cost[better, photos].sum()
            if gain > 1e-9:
                chosen[place], moved = better, True
        if not moved:
            return


def _borders(images: Tensor, kernel: tuple[int, int]) -> Borders:
    """Misfit across the border of two neighboring places, `[N, N]`, in both orders."""
    patches = cut(images, kernel)
    rows, columns = patches.shape[1:3]
    between: dict[tuple[int, int], Tensor] = {}
    for row in range(rows):
        for column in range(columns):
            here, place = patches[:, row, column], row * columns + column
            pairs = []
            if column + 1 < columns:
                pairs.append((place + 1, misfits_below(here.mT, patches[:, row, column + 1].mT)))
            if row + 1 < rows:
                pairs.append((place + columns, misfits_below(here, patches[:, row + 1, column])))
            for other, apart in pairs:
                between[place, other], between[other, place] = apart, apart.T
    return between


def cut(images: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The patches `[N, rows, columns, C, h, w]` of images `[N, C, H, W]`, `h` times `w` pixels."""
    n, c, height, width = images.shape
    rows, columns = height // kernel[0], width // kernel[1]
    tiles = images.reshape(n, c, rows, kernel[0], columns, kernel[1])
    return tiles.permute(0, 2, 4, 1, 3, 5)


def misfits_below(above: Tensor, below: Tensor) -> Tensor:
    """How badly each of the second `[m, C, h, w]` lies below each of the first, `[n, m]`.

    The mean difference on the border itself, between two rows of pixels, where each patch goes on
    as it ends.
    """
    end, begin = _on_border(above.flip(2)), _on_border(below)
    return torch.stack([(row - begin).abs().clamp_max(STEP).mean((1, 2)) for row in end])


def _on_border(patches: Tensor) -> Tensor:
    """What patches `[n, C, h, w]` are half a pixel before their first row, `[n, C, w]`."""
    if patches.shape[2] == 1:
        return patches[:, :, 0]
    return 1.5 * patches[:, :, 0] - 0.5 * patches[:, :, 1]
