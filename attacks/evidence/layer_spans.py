"""What every layer's gradient says of its inputs, whatever comes behind it.

A weight gradient is a sum over images and positions, G = Σ_p δ_p u_pᵀ: u_p is what enters the
layer at position p (a patch, a token), δ_p the upstream gradient there. δ depends on head, labels
and loss; but whatever it is, the rows of G lie in the span of the u_p. Where a layer has fewer
positions in the batch than its inputs have numbers, these rows are directions that the inputs must
span, and images must be such that they do. That needs no label, no head, no loss, and no gradient
of dummy images either. A layer with as many rows as positions gives the whole span, others a part.

It is variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 1973): the best δ is put in. Petrov
et al. (NeurIPS 2024, "DAGER") test so which tokens a language model was trained on, Dimitrov et al.
(NeurIPS 2024, "SPEAR") take a fully connected layer apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.layer_inputs import InputReader, Use
from fedaudit.attacks.evidence.layer_unfolding import RIDGE, rows_of
from fedaudit.attacks.evidence.patch_gram import has_patch_gram, patch_gram

PANELS = 4
"""Panels of a Gram matrix of rows, computed up to the diagonal: two thirds of the seconds."""
# Of one core, by rows of 192 to 1152 numbers: below, four panels take up to a third more.
LEAST_PANELED = 12_000_000
"""Products of numbers from which on that is faster."""
# Of one core, by torch 2.13's: 512 rows take 4.4 ms, 520 take 1.1; 128 take 0.14 ms, 136 0.05.
LINE, PADDING = 128, 8
"""Where a Gram matrix has a multiple of so many rows, its columns fall upon the same lines of the
cache, and a Cholesky factor takes two to four times as long: it gets some rows more."""
STACKED, SMALL = 32, 2**16
"""Rows, and numbers in these, up to which layers of one shape are solved together: there calls
cost as much as numbers."""
FULL = 0.75
"""Share of the most directions in a stack of more rows that a layer has: others are zeros."""
DECISIVE = 2
"""Equations an unknown pixel from which on spans alone decide the images."""


@dataclass(frozen=True, eq=False)
class LayerSpan:
    """What one weight's gradient says of the layer's inputs.

    Attributes:
        name: Of the weight.
        positions: P, how many rows an image sends to the layer.
        basis: `[g, r, F]`, for each group of channels orthonormal rows in double precision:
            directions that the batch's inputs span for certain.
        weights: `[g, r]` in [0, 1], how certain; 0 fills up groups with fewer directions.
        whole: The gradient has as many rows as the batch has positions, or more.
        full: Nothing else is spanned: there are as many directions as positions.
        floor: Relative error of the least certain direction.
        certain: Nothing random (dropout, stochastic depth) comes before the layer.
        of_maps: Rows are whole inputs of the layer, one an image, and not their patches.
        alone: Each row of the basis is what one image sends there, in the order of the images.
        trust: Weight among the layers.
        epochs: In how many epochs of local training each image has a part in it.
        sent: `[F]`, the columns of the gradient that were sent; None for all of them.
        signs: Of signs, or nearly: how long each column of the inputs is was lost.
        centered: Rows are less their means, and have F − 1 dimensions.
    """

    name: str
    positions: int
    basis: Tensor
    weights: Tensor
    whole: bool
    full: bool
    floor: float
    certain: bool = True
    of_maps: bool = False
    alone: bool = False
    trust: float = 1.0
    epochs: int = 1
    sent: Tensor | None = None
    signs: bool = False
    centered: bool = False

    @cached_property
    def share(self) -> Tensor:
        """`[g, r]`, each direction's part of all weights."""
        return self.weights / self.weights.sum()

    @cached_property
    def stacks(self) -> "dict[tuple[LayerSpan, ...], tuple[Tensor, Tensor]]":
        """Directions and shares of this and others, stacked; every step takes them again."""
        return {}

    def rows(self, uses: Sequence[Use], count: int | None = None) -> Tensor:
        """The rows that this span constrains, `[g, P, F]`, from the layer's inputs.

        Of a batch of `count` images, in as many epochs as they have a part in the span.
        """
        if count is not None:
            uses = [(layer, _first(inputs, self.epochs * count)) for layer, inputs in uses]
        if self.of_maps:
            return torch.cat([inputs.flatten(1) for _, inputs in uses])[None]
        each = [rows_of(layer, inputs) for layer, inputs in uses]
        rows = each[0] if len(each) == 1 else torch.cat(each, 1)
        if self.signs:
            rows = F.normalize(rows, dim=1)
        return rows if self.sent is None else rows * self.sent.to(rows)

    def equations(self, count: int) -> int:
        """How many numbers of a batch of `count` the span leaves no freedom."""
        free = max(self.basis.shape[2] - self.centered - self.epochs * count * self.positions, 0)
        return int((self.weights > 0).sum()) * free

    def distance(self, rows: Tensor, gram: Tensor | None = None) -> Tensor:
        """Mean squared sine between the directions and the span of `rows` `[g, P, F]`, in [0, 1].

        Of their Gram matrix `gram` `[g, P, P]`, which is computed where it is not given, in double
        precision: in single precision that of patches is singular. Of known maps each image has its
        own: nothing couples the images then, and single precision does.
        """
        if self.alone:
            cosines = (F.normalize(rows, dim=-1) * self.basis.to(rows)).sum(-1)
            return (1 - cosines.square()).mean()
        return _distances(rows, gram, self.basis, self.share, 1)[0]

    def distance_of_inputs(self, uses: Sequence[Use], count: int) -> Tensor:
        """The distance of what a batch of `count` images sends to the layer."""
        single = len(uses) == 1 and not (self.of_maps or self.signs) and self.sent is None
        layer, inputs = uses[0]
        gram = patch_gram(layer, _first(inputs, self.epochs * count)) if single else None
        return self.distance(self.rows(uses, count), gram)

    def outside(self, rows: Tensor) -> Tensor:
        """The part of an image's `rows` `[P, F]` that the span does not explain; relative."""
        basis, unit = self.basis[0].to(rows), rows / rows.norm()
        left: Tensor = unit - (unit @ basis.T) @ basis
        return left


def _first(inputs: Tensor, count: int) -> Tensor:
    """The first of some inputs; of all, no view, whose slope would be a copy."""
    return inputs if len(inputs) <= count else inputs[:count]


class _SpanDistance(torch.autograd.Function):
    """1 − tr(B Rᵀ (R Rᵀ)⁻¹ R Bᵀ) / W for directions B, weighed, and rows R, of each of some layers.

    Its derivative is −2/W · X E with X = (R Rᵀ)⁻¹ R Bᵀ and E = B − Xᵀ R, what the rows leave: two
    thin products, where differentiating a Cholesky factor costs several times the value. It is
    computed beside the value, while rows are at hand. Restarts that `torch.vmap` runs together are
    taken one by one.
    """

    @staticmethod
    def forward(
        rows: Tensor, gram: Tensor | None, basis: Tensor, share: Tensor, layers: int, sloped: bool
    ) -> tuple[Tensor, Tensor]:
        """Distances of `layers`, among which groups are shared evenly; slopes, if asked for."""
        narrow = rows.detach()
        wide = narrow.double()
        factor = _cholesky_factor(_lower_gram(wide) if gram is None else gram)
        half = torch.linalg.solve_triangular(factor, torch.bmm(wide, basis.mT), upper=False)
        inside = (half.square().sum(1) * share).view(layers, -1).sum(1)
        distances = (1 - inside).clamp_min(0)
        if not sloped:
            return distances, rows.new_empty(0)
        solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        return distances, _slopes(narrow, basis, share, solution)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, slopes = output
        ctx.mark_non_differentiable(slopes)
        ctx.save_for_backward(slopes)
        ctx.layers = inputs[4]

    @staticmethod
    def vmap(
        _: Any,
        in_dims: tuple[int | None, ...],
        rows: Tensor,
        gram: Tensor | None,
        basis: Tensor,
        share: Tensor,
        *how: Any,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        assert in_dims[0] is not None  # spans are the update's, whatever is tried
        each = rows.unbind(in_dims[0])
        own = [None] * len(each) if gram is None else gram.unbind(in_dims[1] or 0)
        said = (basis, share, *how)
        parts = [
            _SpanDistance.apply(one, of_one, *said)  # type: ignore[no-untyped-call]
            for one, of_one in zip(each, own, strict=True)
        ]
        return tuple(map(torch.stack, zip(*parts, strict=True))), (0, 0)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        factor = outer[0].to(slopes.dtype)
        if ctx.layers > 1:
            factor = factor.repeat_interleave(len(slopes) // ctx.layers)[:, None, None]
        return slopes * factor, None, None, None, None, None


# `apply` asks for it in each call, and to tell it takes as long as several products.
_SpanDistance.forward.__signature__ = signature(_SpanDistance.forward)  # type: ignore[attr-defined]


def _slopes(rows: Tensor, basis: Tensor, share: Tensor, solution: Tensor) -> Tensor:
    """Those of a distance by rows `[g, P, F]`, of X `[g, P, r]` and each direction's share."""
    usual = torch.promote_types(rows.dtype, torch.float32)
    narrow, solution = rows.to(usual), solution.to(usual)
    # tests/attacks/test_span_distance.py holds slopes to those of double precision. R Bᵀ so,
    # too, lets distances through MobileFaceNet, whose rows are nearly dependent, be off, and
    # L-BFGS stop there: SSIM 0.95 for 0.98 (p09, p10; docs/benchmarks/search_settings.md).
    left = torch.baddbmm(basis.to(usual), solution.mT, narrow, beta=-2, alpha=2)
    weighed = share.to(usual)[:, None] * solution
    # In the order of memory of the rows: `fold` need not turn those of patches over, and batch
    # norm's slopes of one image are wrong in another (`rows_of`).
    by_columns = rows.stride(-1) != 1
    slopes = torch.bmm(left.mT, weighed.mT).mT if by_columns else torch.bmm(weighed, left)
    return slopes.to(rows.dtype)


def _cholesky_factor(gram: Tensor) -> Tensor:
    """L `[g, P, P]` of a Gram matrix and its ridge, which is added in place; by the lower triangle.

    No more calls than that takes: of small layers these cost more than the numbers.
    """
    own = gram.diagonal(dim1=1, dim2=2)
    ridge = own.mean(1, keepdim=True)
    own.add_(ridge, alpha=RIDGE).add_(1e-300)  # of a layer that nothing enters, too
    factor, failure = _factored(gram)
    if bool(failure.any()):  # rounding: rows that are nearly dependent
        own.add_(ridge * (failure > 0)[:, None], alpha=1e3 * RIDGE)
        factor, _ = _factored(gram)
    return factor


def _factored(gram: Tensor) -> tuple[Tensor, Tensor]:
    """`torch.linalg.cholesky_ex`, by which some sizes take much longer than larger ones."""
    count = gram.shape[1]
    if count % LINE == 0:
        gram = F.pad(gram, (0, PADDING, 0, PADDING))
        gram.diagonal(dim1=1, dim2=2)[:, count:] = 1
    factor, failure = torch.linalg.cholesky_ex(gram)
    return factor[:, :count, :count], failure


def _lower_gram(rows: Tensor) -> Tensor:
    """The lower triangle of R Rᵀ `[g, P, P]`, from rows `[g, P, F]`; above it is not defined.

    By panels of rows, 0.63 of the products where they are many: a Cholesky factor reads no more.
    """
    count, width = rows.shape[1:]
    if count**2 * width < LEAST_PANELED:
        return torch.bmm(rows, rows.mT)
    gram = rows.new_empty(len(rows), count, count)
    height = -(-count // PANELS)
    for first in range(0, count, height):
        end = min(first + height, count)
        torch.bmm(rows[:, first:end], rows[:, :end].mT, out=gram[:, first:end, :end])
    return gram


def span_distance(reader: InputReader, spans: Sequence[LayerSpan], images: Tensor) -> Tensor:
    """Mean over the layers of `span_distances`.

    A linear mean: one of logarithms lets the late layers, which need little to agree, outweigh
    those that hold the pixels.
    """
    return span_distances(reader, spans, images).mean()


def span_distances(reader: InputReader, spans: Sequence[LayerSpan], images: Tensor) -> Tensor:
    """`LayerSpan.distance` by trust of each layer, `[spans]`; of a batch's images together."""
    uses, count = reader.inputs([span.name for span in spans], images), len(images)
    apart: dict[int, Tensor] = {}
    stackable: dict[int, Tensor] = {}
    for number, span in enumerate(spans):
        if _is_small(span, uses[span.name], count):
            stackable[number] = span.rows(uses[span.name], count)
        else:
            apart[number] = span.distance_of_inputs(uses[span.name], count)
    for numbers in _alike(spans, stackable):
        own, rows = zip(*((spans[n], stackable[n]) for n in numbers), strict=True)
        apart |= zip(numbers, _stacked(own, rows), strict=True)
    together = torch.stack([apart[number] for number in range(len(spans))])
    return together * together.new_tensor([span.trust for span in spans])


def _is_small(span: LayerSpan, uses: Sequence[Use], count: int) -> bool:
    """Whether calls cost as much as numbers where a layer is solved by itself."""
    rows, width = span.epochs * count * span.positions, span.basis.shape[2]
    if type(span) is not LayerSpan or span.alone:
        return False
    return rows <= STACKED or (rows * width <= SMALL and not has_patch_gram(uses[0][0]))


def _alike(spans: Sequence[LayerSpan], rows: Mapping[int, Tensor]) -> list[list[int]]:
    """Numbers of layers that have rows `[g, P, F]` of one shape, and about as many directions."""
    stacks: list[list[int]] = []
    shapes: list[tuple[int, ...]] = []
    for number in sorted(rows, key=lambda n: -spans[n].basis.shape[1]):
        one, directions = rows[number], spans[number].basis.shape[1]
        for stack, shape in zip(stacks, shapes, strict=True):
            most = spans[stack[0]].basis.shape[1]
            fits = one.shape[1] <= STACKED or directions >= FULL * most
            if shape == one.shape and fits:
                stack.append(number)
                break
        else:
            stacks.append([number])
            shapes.append(one.shape)
    return stacks


def _stacked(spans: Sequence[LayerSpan], rows: Sequence[Tensor]) -> Tensor:
    """Distances of some spans, `[spans]`, from rows `[g, P, F]` of one shape."""
    first, others = spans[0], tuple(spans[1:])
    if not others:
        return first.distance(rows[0])[None]
    if others not in first.stacks:
        most = max(span.basis.shape[1] for span in spans)
        short = [most - span.basis.shape[1] for span in spans]
        first.stacks[others] = (
            torch.cat([F.pad(s.basis, (0, 0, 0, n)) for s, n in zip(spans, short, strict=True)]),
            torch.cat([F.pad(s.share, (0, n)) for s, n in zip(spans, short, strict=True)]),
        )
    return _distances(torch.cat(tuple(rows)), None, *first.stacks[others], len(spans))


def _distances(
    rows: Tensor, gram: Tensor | None, basis: Tensor, share: Tensor, layers: int
) -> Tensor:
    """Of each of some layers, `[layers]`."""
    how = (layers, torch.is_grad_enabled())
    apart: Tensor = _SpanDistance.apply(rows, gram, basis, share, *how)[0]  # type: ignore[no-untyped-call]
    return apart


def decisive(spans: Sequence[LayerSpan], pixels: int, count: int) -> bool:
    """Whether the spans leave the images no freedom, by counting equations and pixels."""
    return sum(span.equations(count) for span in spans) >= DECISIVE * count * pixels
