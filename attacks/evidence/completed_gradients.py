"""A layer's whole gradient, out of those of its numbers that are known.

G = Σ_p δ_p u_pᵀ has fewer degrees of freedom than numbers: a batch's patches overlap, so that its
maps and upstream gradients are what is unknown, and where enough numbers are known they follow from
these (`bilinear_fit`), as a low-rank matrix follows from some of its entries: from inputs that are
nearly right, or from noise where fifteen times as much is known as is unknown. A tenth of the known
numbers is held out: only a gradient that predicts these is believed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.bilinear_fit import Problem, fit
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.layer_unfolding import has_columns, matrices_of, rows_of

# By eight photos of p01 and p02 through a trained ResNet-18 in training mode, one step of Adam:
# gradients of the last two stages predict 2e-3 and 1e-2 of what was held out, those that do not
# follow (the first of the third stage, 1.2 known numbers an unknown) twice as much as there is.
HELD_OUT, PREDICTED = 0.1, 0.05
"""Share of the known numbers that is held out; largest relative square of what they are missed by,
in units of their errors, at which a gradient is believed."""
# The same photos: the least direction of the third stage has 3.5e-3 of the first, and what batch
# norm leaves none of has 5e-4 to 8e-4.
ROUNDING = 1.5e-3
"""Share of the largest singular value below which a direction is rounding; less where what was held
out is predicted better."""
ENOUGH = 12.0
"""Known numbers by those of the inputs, with which the first steps are made."""
LAST = 0.25
"""Steps with all of them, as a share of those with these."""


@dataclass(frozen=True)
class Completed:
    """A gradient that predicts known numbers of it.

    Attributes:
        gradient: Like the weight, in double precision; directions that are rounding left out.
        missed: Relative square of what was held out that it misses.
    """

    gradient: Tensor
    missed: float


def known_per_unknown(known: KnownEntries, layer: nn.Module, inputs: Tensor) -> float:
    """Known numbers of a layer's gradient by those that it follows from."""
    groups, rows, _ = matrices_of(layer, known.numbers).shape
    upstream = groups * rows * rows_of(layer, inputs[:1]).shape[1] * len(inputs)
    given = int((known.known & (known.numbers != 0)).sum())
    return given / (inputs.numel() + upstream)


def complete(
    known: KnownEntries,
    layer: nn.Module,
    inputs: Tensor,
    *,
    rank: int,
    steps: int,
    generator: torch.Generator,
    within: float = PREDICTED,
) -> Completed | None:
    """The gradient of a layer's weight; None where it does not follow.

    Args:
        known: Numbers of it.
        layer: That has the weight.
        inputs: What enters it, `[N, …]`: nearly, or noise of that shape.
        rank: Directions that its rows span at most.
        steps: Of Gauss–Newton, at most.
        generator: Of what is held out.
        within: Relative square of that, which a gradient may miss to be believed.
    """
    problem = Problem.of(layer, known.numbers, known.errors)
    held_out = torch.rand(problem.numbers.shape, generator=generator) < HELD_OUT
    held_out = held_out.to(inputs.device) & (problem.weights > 0)
    if not bool(held_out.any()):
        return None
    given, last = problem.without(held_out), math.ceil(LAST * steps)
    some = fit(given.fullest(ENOUGH * inputs.numel()), inputs, steps)
    most = some and fit(given, some[0], last)
    if most is None:
        return None
    missed = problem.missed(*most)
    size = (problem.weights * problem.numbers)[held_out].square().sum()
    share = missed[held_out].square().sum() / size
    if not share < within:
        return None
    fitted = fit(problem, most[0], last)
    assert fitted is not None
    product = problem.product(*fitted)
    whole = _of_rank(product.double() * problem.scale, rank, min(ROUNDING, math.sqrt(share)))
    shape = known.numbers.shape
    own = whole.mT if has_columns(layer) else whole
    return Completed(own.reshape(shape), float(share))


def _of_rank(matrices: Tensor, rank: int, rounding: float) -> Tensor:
    """`[g, r, F]` of so many directions, without those that are hardly there."""
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    sizes = sizes * (sizes > rounding * sizes[:, :1])
    sizes[:, rank:] = 0
    found: Tensor = (left * sizes[:, None]) @ right
    return found
