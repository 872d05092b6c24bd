"""Each image's own map, out of the space in which a batch's maps come out mixed (`common_maps`).

What a ReLU lets through is nowhere negative and often zero. The maps of a space that are nowhere
negative are a cone; the batch's own are edges of it, and unlike others they are zero in far more
places than they have neighbors: linear programs find edges, zeros tell which are maps. It is
nonnegative matrix factorization with the space known (Donoho & Stodden, NeurIPS 2003), and for maps
what Cocktail Party (Kariyappa et al., ICML 2023) does for a fully connected layer by independence.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader

TRIES = 8
"""Linear programs an image after which the maps are given up."""
# Inexact ones: of eight photos of p01 and p02 after a step of Adam, whose gradients were completed,
# spaces of two layers are off by a sine of 0.01 to 0.04. With 1e-3 or 0.03 no map is found, 0.1
# and 0.2 all sixteen, to 1 − cos of 2e-5 to 1e-4, with 0.3 one of them twice.
NEGATIVE, INEXACTLY = 1e-3, 0.1
"""What maps may be below zero, in units of their mean: by rounding, and where the space is
inexact."""
NEAR, NEARLY = (3e-2, 1e-2, 1e-2), (0.2, 0.1, 0.1)
"""What counts as zero, in units of the mean, from one look to the next; the same likewise."""
ZEROS = 0.05
"""Least share of places where a map is zero."""
GAP = 0.1
"""Largest ratio of what the one map has in those places, squared, to what the next has."""

SURE = 0.05
"""By how much two maps must be more like their own than each like the other's, as correlations. Of
eight photos of p01 and p02 of OpenPeople on a trained ResNet-18, 0.12 to 0.42."""
SPREAD = 0.1
"""Least spread of places that count in full, in units of the mean."""


def unmix(space: Tensor, *, exact: bool = True) -> Tensor | None:
    """The maps of single images, unit rows `[N, F]` in any order; None where there are none.

    Args:
        space: Orthonormal `[N, F]`, which span the maps.
        exact: They do so to rounding.
    """
    negative = NEGATIVE if exact else INEXACTLY
    basis = space.double().cpu()
    if len(basis) == 1:  # one image's own, up to its sign
        return (basis * basis.sum().sign()).to(space)
    places, mean = (-basis.T).numpy(), basis.mean(1)
    generator, edges = torch.Generator().manual_seed(0), basis.new_zeros(0, len(basis))
    for _ in range(TRIES * len(basis)):
        aim = torch.randn(len(basis), generator=generator).double()
        if len(edges):  # away from what is known
            known = torch.linalg.qr(edges.T).Q
            aim = aim - known @ (known.T @ aim)
        program = linprog(
            -aim.numpy(),
            *(places, [negative] * basis.shape[1], mean[None].numpy(), [1.0]),
            bounds=(None, None),
        )
        if program.x is None:  # no map of the space is nowhere negative
            return None
        edge = _settle(basis, torch.from_numpy(program.x), NEAR if exact else NEARLY)
        if edge is not None and float(edge @ aim) > GAP * float(aim.norm()) / len(basis):
            edges = torch.cat([edges, edge[None]])
        if len(edges) == len(basis):
            return F.normalize((edges @ basis).clamp_min(0), dim=1).to(space)
    return None


def _settle(basis: Tensor, edge: Tensor, looks: Sequence[float]) -> Tensor | None:
    """The one map that is zero where that of `edge` `[N]` nearly is; None where it is no map."""
    for near in looks:
        values = edge @ basis
        zero = values.abs() < near * values.abs().mean()
        if int(zero.sum()) < max(ZEROS * basis.shape[1], 2 * len(basis)):
            return None
        within = basis[:, zero]
        squares, vectors = torch.linalg.eigh(within @ within.T)
        edge = vectors[:, 0] * torch.sign(vectors[:, 0] @ basis.mean(1))
    values = edge @ basis
    if squares[0] > GAP * squares[1] or values.min() < -looks[-1] * values.abs().mean():
        return None
    return edge


def in_one_order(reader: InputReader, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps of several layers, by weight and in the order of the pass, with images in one order.

    What the maps of one layer make of the next tells whose they are, whatever else comes in there
    (over a shortcut, gray). Layers of which that does not tell are left out.

    Args:
        reader: Of the network.
        maps: By weight, unit rows `[N, F]`.
    """
    ordered: dict[str, Tensor] = {}
    # Noise would set the images apart by what is not theirs.
    gray = torch.full((reader.count, *reader.shape), 0.5).to(next(reader.model.parameters()))
    for name, rows in maps.items():
        if ordered:
            before = next(reversed(ordered))
            like = _likeness(_entered(reader, name, gray, before, ordered[before]), rows)
            own = torch.as_tensor(linear_sum_assignment(-like.numpy())[1])
            like = like[:, own]
            sure = like.diagonal()[:, None] + like.diagonal() - like - like.T
            sure.fill_diagonal_(torch.inf)
            if sure.min() < SURE:
                continue
            ordered[name] = rows[own]
        else:
            ordered[name] = rows
    return ordered


def _entered(reader: InputReader, name: str, images: Tensor, before: str, maps: Tensor) -> Tensor:
    """What enters a layer, `[N, F]`, where the one before is given maps as long as its own."""

    def give(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        length = float(args[0].norm()) or args[0].numel() ** 0.5
        return (maps.to(args[0]).view_as(args[0]) * length / maps.norm(),)

    hook = reader.layers[before][0].register_forward_pre_hook(give)
    try:
        with torch.no_grad():
            return reader.inputs([name], images)[name][0][1].flatten(1)
    finally:
        hook.remove()


def _likeness(one: Tensor, two: Tensor) -> Tensor:
    """Correlation of what sets rows apart, place by place, `[N, N]`."""
    apart = []
    for rows in (one.double().cpu(), two.double().cpu()):
        spread = rows.std(0)
        least = (SPREAD * spread.mean()).clamp_min(1e-12)  # all may be alike
        apart.append(F.normalize((rows - rows.mean(0)) / (spread + least), dim=1))
    return apart[0] @ apart[1].T
