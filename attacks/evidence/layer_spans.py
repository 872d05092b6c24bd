"""What every layer's gradient says of its inputs, whatever comes behind it.

A weight gradient is a sum over images and positions, G = Σ_p δ_p u_pᵀ: u_p is what enters the
layer at position p (a patch, a token), δ_p the upstream gradient there. δ depends on head, labels
and loss; but whatever it is, the rows of G lie in the span of the u_p. Where a layer has fewer
positions in the batch than its inputs have numbers, these rows are directions that the inputs must
span, and images must be such that they do. That needs no label, no head, no loss, and no gradient
of dummy images either. A layer with as many rows as positions gives the whole span, others a part.

Of signs, which signSGD sends and which a step of Adam nearly is, rows lie near the span of inputs
whose columns are divided by their lengths: a sign is its number over its own size, and how large a
column's numbers are goes with that column of the inputs. What a sign has beside a multiple of its
number is nearly independent from entry to entry, and of known size.

It is variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 1973): the best δ is put in. Petrov
et al. (NeurIPS 2024, "DAGER") test so which tokens a language model was trained on, Dimitrov et al.
(NeurIPS 2024, "SPEAR") take a fully connected layer apart.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.layer_inputs import RIDGE, InputReader, Use, matrices_of, rows_of
from fedaudit.attacks.evidence.patch_gram import patch_gram

GAP = 2.0
"""Singular values must exceed the largest that is none of the signal's by this factor."""
PRECISION = 1e-5
"""Relative size of singular values below which they are rounding."""
# Of sixteen photos of p01 and p02 of OpenPeople through a ResNet-18 in training mode, 256 positions
# and as many rows, the last three are 2e-5, 1e-5 and 2e-8: with `PRECISION` two of three layers'
# maps are missed (benchmarks/subspace.py --maps --batch 16 --people p01 p02, with --set
# attacks.evidence.layer_spans.SQUARE_PRECISION=1e-5).
SQUARE_PRECISION = 1e-6
"""The same of a batch's gradient with fewer than two rows a position: near a square matrix, the
smallest singular values are small by themselves, and a layer's maps need the last of them."""
DRIFT = 0.01
"""The same of an update of several steps whose spectrum does not show it."""
FOLLOWED = 0.002
"""The same where what enters layers is followed step by step (`mini_batches`): of sixteen photos of
p01 and p02 after two epochs, replayed on images of SSIM 0.59, smaller ones are missed by 0.01."""
SIGN_NOISE = (1 - 2 / math.pi) ** 0.5
"""Standard deviation of what the sign of a normal number has beside a multiple of that number."""
SPARE = 8
"""Singular values beyond the number of positions that are looked at."""
PANELS = 4
"""Panels of a Gram matrix of rows, computed up to the diagonal: two thirds of the seconds."""
TRUST = 0.5
"""Power of the expected misfit by which layers are weighed. Not compared with others to the end:
benchmarks/subspace.py --only "two epochs" --set attacks.evidence.layer_spans.TRUST=0 would."""
DECISIVE = 2
"""Equations an unknown pixel from which on spans alone decide the images."""


@dataclass(frozen=True)
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

    def rows(self, uses: Sequence[Use], count: int | None = None) -> Tensor:
        """The rows that this span constrains, `[g, P, F]`, from the layer's inputs.

        Of a batch of `count` images, in as many epochs as they have a part in the span.
        """
        if count is not None:
            uses = [(layer, inputs[: self.epochs * count]) for layer, inputs in uses]
        if self.of_maps:
            return torch.cat([inputs.flatten(1) for _, inputs in uses])[None]
        rows = torch.cat([rows_of(layer, inputs) for layer, inputs in uses], 1)
        if self.signs:
            rows = F.normalize(rows, dim=1)
        return rows if self.sent is None else rows * self.sent.to(rows)

    def equations(self, count: int) -> int:
        """How many numbers of a batch of `count` the span leaves no freedom."""
        free = max(self.basis.shape[2] - self.epochs * count * self.positions, 0)
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
        apart: Tensor = _SpanDistance.apply(rows, gram, self.basis, self.weights)[0]  # type: ignore[no-untyped-call]
        return apart

    def distance_of_inputs(self, uses: Sequence[Use], count: int) -> Tensor:
        """The distance of what a batch of `count` images sends to the layer."""
        single = len(uses) == 1 and not (self.of_maps or self.signs) and self.sent is None
        layer, inputs = uses[0]
        gram = patch_gram(layer, inputs[: self.epochs * count]) if single else None
        return self.distance(self.rows(uses, count), gram)

    def outside(self, rows: Tensor) -> Tensor:
        """The part of an image's `rows` `[P, F]` that the span does not explain; relative."""
        basis, unit = self.basis[0].to(rows), rows / rows.norm()
        left: Tensor = unit - (unit @ basis.T) @ basis
        return left


class _SpanDistance(torch.autograd.Function):
    """1 − tr(B Rᵀ (R Rᵀ)⁻¹ R Bᵀ) / W for directions B, weighed, and rows R.

    Its derivative is −2/W · X E with X = (R Rᵀ)⁻¹ R Bᵀ and E = B − Xᵀ R, what the rows leave: two
    thin products, where differentiating a Cholesky factor costs several times the value; the last
    of them, which nothing is subtracted from, in single precision, where rows have no more.
    Restarts that `torch.vmap` runs together are taken one by one.
    """

    @staticmethod
    def forward(
        rows: Tensor, gram: Tensor | None, basis: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Distance, and what its derivative needs: the rows in double precision, and X."""
        wide = rows.detach().double()
        gram = _lower_gram(wide) if gram is None else gram.clone()
        scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
        gram.diagonal(dim1=1, dim2=2).add_(RIDGE * scale[:, None])
        products = wide @ basis.mT
        factor, failure = torch.linalg.cholesky_ex(gram)
        if bool(failure.any()):  # rounding: rows that are nearly dependent
            gram.diagonal(dim1=1, dim2=2).add_(1e3 * RIDGE * scale[:, None])
            factor, _ = torch.linalg.cholesky_ex(gram)
        solution = torch.cholesky_solve(products, factor)
        total = weights.sum()
        inside = ((solution * products).sum(1) * weights).sum()
        return (1 - inside / total).clamp_min(0), wide, solution

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        rows, _, basis, weights = inputs
        _, wide, solution = output
        ctx.mark_non_differentiable(wide, solution)
        ctx.save_for_backward(wide, basis, weights, solution)
        ctx.dtype = rows.dtype

    @staticmethod
    def vmap(
        _: Any,
        in_dims: tuple[int | None, ...],
        rows: Tensor,
        gram: Tensor | None,
        basis: Tensor,
        weights: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        assert in_dims[0] is not None  # spans are the update's, whatever is tried
        each = rows.unbind(in_dims[0])
        own = [None] * len(each) if gram is None else gram.unbind(in_dims[1] or 0)
        parts = [
            _SpanDistance.apply(one, of_one, basis, weights)  # type: ignore[no-untyped-call]
            for one, of_one in zip(each, own, strict=True)
        ]
        return tuple(map(torch.stack, zip(*parts, strict=True))), (0, 0, 0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        wide, basis, weights, solution = ctx.saved_tensors
        left = basis - solution.mT @ wide
        rows = (-2 * slopes[0] / weights.sum()) * weights[:, None] * solution
        usual = torch.promote_types(ctx.dtype, torch.float32)
        return (rows.to(usual) @ left.to(usual)).to(ctx.dtype), None, None, None


def _lower_gram(rows: Tensor) -> Tensor:
    """The lower triangle of R Rᵀ `[g, P, P]`, from rows `[g, P, F]`; above it is not defined.

    By panels of rows, 0.63 of the products: a Cholesky factor reads nothing more.
    """
    count = rows.shape[1]
    gram = rows.new_empty(len(rows), count, count)
    height = -(-count // PANELS)
    for first in range(0, count, height):
        end = min(first + height, count)
        torch.bmm(rows[:, first:end], rows[:, :end].mT, out=gram[:, first:end, :end])
    return gram


def find_spans(
    reader: InputReader,
    target: Mapping[str, Tensor],
    *,
    private: Collection[str] = (),
    clean: bool = False,
    noise: Callable[[str], float] = lambda _: 0.0,
    least: int = 0,
    gaps: bool = False,
    signs: bool = False,
) -> tuple[LayerSpan, ...]:
    """What the gradient of each layer gives away, in the order of the forward pass.

    How many directions are certain, the spectrum says: beyond the number of positions it shows what
    is noise, or the drift of several local steps. Layers that have no such singular values are
    taken to be as inexact as the others.

    Args:
        reader: Of the network.
        target: Mean gradient by parameter name.
        private: Names of local parameters; layers behind the first of them are left out, because
            what dummy images send there is not known.
        clean: The update is one exact gradient.
        noise: Standard deviation of independent noise on an entry, by parameter.
        least: Directions that each layer is believed, however uncertain.
        gaps: Columns of zeros were not sent (Soteria): what inputs have there is not compared, not
            even where it was zero for everybody.
        signs: Of most numbers of the gradient only the sign is left (`SIGN_NOISE`).
    """
    positions = reader.positions(private)
    spectra, epochs = {}, {}
    for name in positions:
        if name in target:
            matrix = matrices_of(reader.layers[name][0], target[name].detach()).double()
            total = reader.count * positions[name].positions
            epochs[name] = max(min(reader.epochs, (positions[name].width - 1) // total), 1)
            spectra[name] = _spectrum(matrix, epochs[name] * total + SPARE)
    totals = {n: epochs[n] * reader.count * positions[n].positions for n in spectra}
    beyond = [
        float((sizes[:, totals[name]] / sizes[:, 0].clamp_min(1e-300)).max())
        for name, (sizes, _) in spectra.items()
        if totals[name] < sizes.shape[1]
    ]
    shown = sorted(beyond)[len(beyond) // 2] if beyond else (0.0 if clean else DRIFT)
    spans = []
    for name, (sizes, rows) in spectra.items():
        total, height = totals[name], len(sizes[0])
        first = sizes[:, :1]
        square = reader.count > 1 and total <= reader.sides(name)[0] < 2 * total
        precision = SQUARE_PRECISION if square else PRECISION
        if reader.moments:
            precision = shown = FOLLOWED if epochs[name] == reader.epochs else DRIFT
        floor = max(precision, shown) * first
        if total < height:
            floor = torch.maximum(precision * first, sizes[:, total : total + 1])
        edge = sum(x**0.5 for x in reader.sides(name))  # of a matrix of noise of deviation 1
        loud = noise(name) * edge
        if signs:  # what lies beyond the number of positions is that noise, and no precision
            size = float(target[name].square().mean().sqrt())
            floor, loud = torch.zeros_like(floor), max(loud, SIGN_NOISE * size * edge / GAP)
        floor = floor.clamp_min(max(loud, 1e-300))
        sure = sizes[:, :total] > GAP * floor
        sure[:, :least] = True
        rank = int(sure.sum(1).max())
        if not rank:
            continue
        sure, spectrum = sure[:, :rank], sizes[:, :rank].clamp_min(1e-300)
        weights = (1 - (GAP * floor / spectrum).square()).clamp_min(1e-3 if least else 0) * sure
        relative = float((floor / spectrum).where(sure, 0).max())
        whole, full = total <= reader.sides(name)[0], bool(sure.all()) and rank == total
        spans.append(
            LayerSpan(
                name=name,
                positions=positions[name].positions,
                basis=rows[:, :rank],
                weights=weights,
                whole=whole,
                full=full,
                floor=relative,
                certain=positions[name].certain,
                epochs=epochs[name],
                sent=_sent(reader, name, target[name]) if gaps else None,
                signs=signs,
            )
        )
    return tuple(spans)


def _sent(reader: InputReader, name: str, gradient: Tensor) -> Tensor | None:
    """The columns `[F]` of a layer's gradient that are not zero; None where none is."""
    zero = (matrices_of(reader.layers[name][0], gradient.detach()) == 0).all(1).all(0)
    return ~zero if bool(zero.any()) else None


def _spectrum(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest singular values `[g, m]` and right singular vectors `[g, m, F]` of `[g, r, F]`.

    All of them by the Gram matrix, which costs a tenth; what it loses lies below `PRECISION`. Where
    few of many are wanted, by subspace iteration (Halko et al., SIAM Review 2011).
    """
    if 4 * rank < min(matrix.shape[1:]):
        start = torch.randn(matrix.shape[1], rank, generator=torch.Generator().manual_seed(0))
        basis = matrix.mT @ start.to(matrix)
        for _ in range(2):
            basis = matrix.mT @ (matrix @ torch.linalg.qr(basis).Q)
        basis = torch.linalg.qr(basis).Q
        _, sizes, rows = torch.linalg.svd(matrix @ basis, full_matrices=False)
        return sizes, rows @ basis.mT
    if matrix.shape[1] > matrix.shape[2]:
        matrix = torch.linalg.qr(matrix).R
    squares, left = torch.linalg.eigh(matrix @ matrix.mT)
    sizes = squares.flip(1).clamp_min(0).sqrt()
    rows = left.flip(2).mT @ matrix
    rows = rows / sizes[..., None].clamp_min(1e-300)
    # Small ones are orthogonal to the others up to the square of what they are smaller by.
    return sizes, torch.linalg.qr(rows.mT).Q.mT


def span_distance(reader: InputReader, spans: Sequence[LayerSpan], images: Tensor) -> Tensor:
    """Mean over the layers of `LayerSpan.distance`; of all images of the batch together.

    A linear mean: one of logarithms lets the late layers, which need little to agree, outweigh
    those that hold the pixels.
    """
    uses = reader.inputs([span.name for span in spans], images)
    parts = [s.trust * s.distance_of_inputs(uses[s.name], len(images)) for s in spans]
    return torch.stack(parts).mean()


def trusted(spans: Sequence[LayerSpan], misfit: Mapping[str, float]) -> tuple[LayerSpan, ...]:
    """The spans, those weighed less that the true images miss by more (`simulated_misfit`).

    Args:
        spans: Of layers.
        misfit: Mean squared sine that is expected of the true images, by weight; {} trusts all.
    """
    if not misfit or not spans:
        return tuple(spans)
    usual = sorted(misfit.values())[len(misfit) // 2]
    trust = [misfit.get(span.name, usual) ** -TRUST for span in spans]
    mean = sum(trust) / len(trust)
    return tuple(replace(s, trust=t / mean) for s, t in zip(spans, trust, strict=True))


def alike_by_direction(spans: Sequence[LayerSpan]) -> tuple[LayerSpan, ...]:
    """The spans, weighed so that each direction counts alike, in whichever layer it is.

    For spans that noise of one relative size in all layers blurs, as that of signs is. A photo of
    p01 and four, one step of Adam, ResNet-18 at 64 px: SSIM 0.56 and 0.58 by layers alike, 0.67 and
    0.62 so.
    """
    if not spans:
        return ()
    said = [float(span.weights.sum()) for span in spans]
    mean = sum(said) / len(said)
    return tuple(replace(s, trust=one / mean) for s, one in zip(spans, said, strict=True))


def decisive(spans: Sequence[LayerSpan], pixels: int, count: int) -> bool:
    """Whether the spans leave the images no freedom, by counting equations and pixels."""
    return sum(span.equations(count) for span in spans) >= DECISIVE * count * pixels
