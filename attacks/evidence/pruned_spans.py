"""What a pruned gradient still says of each layer's inputs, entry by entry.

The rows of G = Σ_p δ_p u_pᵀ lie in the span of the inputs u_p (`layer_spans`); with entries left
out they no longer do. But each row is a combination of the u_p at the entries that were kept, and
where these are more than the positions, they say something of the inputs: for given u_p, a row's
best coefficients are a small least-squares problem of its own. So pruning of 90 or 99 % takes
equations away, and no kind of them.

How far the rest of a row lies off is not all alike: upstream gradients are dominated by a few
directions, and what the others say would go under. So the rest is taken back through the
coefficients, to the change of inputs that it stands for (one step of Gauss–Newton), in which all
directions count alike, as they do where nothing is missing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedaudit.attacks.evidence.confirmed_layers import Position
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.evidence.layer_unfolding import RIDGE, matrices_of

SPARE = 1.3
"""Entries a position that a row must have kept: with hardly more, anything explains it. Set by
hand."""
# By a photo of p01, SSIM 0.80 with 1e-6, 0.84 so, 0.82 with 1e-2: benchmarks/subspace.py --only
# "group-norm" --batch 1 --targets 1 --people p01 p02 --defense top_k pruned=0.99, with --set
# attacks.evidence.pruned_spans.DAMPING=1e-6. With `PLAIN` at 0, as it was then.
DAMPING = 1e-4
"""Of the coefficients' squares, relative to their mean: directions below its root are left out."""
COEFFICIENTS = 1e-9
"""Ridge of a row's least squares, relative to the mean square of its inputs."""
PLAIN = 1.0
"""Weight of the rest as it is, beside that of directions that count alike. Set by hand: with 0 an
image that sends nothing to a layer explains all that it says."""
CHUNK = 20_000_000
"""Numbers of inputs at kept entries that are held at once."""
WORK = 1e9
"""Multiplications a step and image, over all layers, some 0.5 CPU seconds: layers that say most for
them come first, and of the last of these the rows that kept the most. One photo through ResNet-18
at 64 px, nine tenths of whose entries are gone, takes a seventh of it; with a fifth of them gone
the first stage would take ten times it, and is left out."""


@dataclass(frozen=True, kw_only=True)
class PrunedSpan(LayerSpan):
    """What the kept entries of one weight's gradient say of the layer's inputs.

    It has no directions of its own: `basis` is empty.

    Attributes:
        places: `[C, K]`, the columns that each row kept; those that kept fewer repeat any.
        kept: `[C, K]`, 1 for these, 0 for what fills up.
        numbers: `[C, K]`, what was sent there; each row of length 1.
        certainty: `[C]`, share of a row's numbers that its coefficients do not use up.
    """

    places: Tensor
    kept: Tensor
    numbers: Tensor
    certainty: Tensor

    def equations(self, count: int) -> int:
        """How many numbers of a batch of `count` are left over by the rows' coefficients."""
        free = self.kept.sum(1) - count * self.positions
        return int(free.clamp_min(0).sum())

    def distance(self, rows: Tensor, gram: Tensor | None = None) -> Tensor:
        """How far what was sent is from the span of `rows` `[1, P, F]`: 0 to about 1.

        Of `rows`' Gram matrix `gram` `[1, P, P]`, which is computed where it is not given.
        """
        said = (self.places, self.kept, self.numbers, self.certainty)
        apart: Tensor = _PrunedDistance.apply(rows, gram, *said)[0]  # type: ignore[no-untyped-call]
        return apart


class _PrunedDistance(torch.autograd.Function):
    """d + r − d r, of the distance by directions d and the share r of what was sent that is left.

    d = ‖L⁻¹ X‖² / (P ρ), where X = W⁺ E is the change of rows R that what they leave, E, stands
    for; W holds each row's best coefficients, ρ is the share of entries kept, L Lᵀ = R Rᵀ + X Xᵀ /
    ρ. It is the distance of `layer_spans` where nothing is missing, and so is its slope −2 (L Lᵀ)⁻¹
    X / (P ρ), which is taken as if W and L were held. It looks only where coefficients point, which
    is nowhere for an image that sends nothing; r is 1 there.
    """

    @staticmethod
    def forward(
        rows: Tensor,
        gram: Tensor | None,
        places: Tensor,
        kept: Tensor,
        numbers: Tensor,
        certainty: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The distance, and its slope `[1, P, F]`."""
        inputs = rows.detach()[0].double()
        count, width = inputs.shape
        own = [
            _explained(inputs, *parts)
            for parts in zip(*(_in_chunks(x, count) for x in (places, kept, numbers)), strict=True)
        ]
        coefficients, left = (torch.cat(parts) for parts in zip(*own, strict=True))
        weighed = coefficients * certainty[:, None]
        squares = _with_ridge(weighed.T @ coefficients, DAMPING)
        change = torch.linalg.solve(squares, weighed.T @ left)
        whole = inputs @ inputs.T if gram is None else gram[0]
        share = float(kept.sum()) / (len(kept) * width)
        whole, size = whole + change @ change.T / share, count * share
        factor, _ = torch.linalg.cholesky_ex(_with_ridge(whole, RIDGE))
        units = torch.linalg.solve_triangular(factor, change, upper=False)
        slope = torch.linalg.solve_triangular(factor.T, units, upper=True) * (-2 / size)
        even = units.square().sum() / size
        rest = PLAIN * (left.square().sum(1) @ certainty) / certainty.sum()
        plain = weighed.T @ left * (-2 * PLAIN / certainty.sum())
        slope = (1 - rest) * slope + (1 - even) * plain
        return even + rest - even * rest, slope[None]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, slope = output
        ctx.mark_non_differentiable(slope)
        ctx.save_for_backward(slope)
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def vmap(
        _: Any, in_dims: tuple[int | None, ...], rows: Tensor, gram: Tensor | None, *said: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Restarts one by one."""
        assert in_dims[0] is not None  # what was sent is the update's, whatever is tried
        each = rows.unbind(in_dims[0])
        own = [None] * len(each) if gram is None else gram.unbind(in_dims[1] or 0)
        parts = [
            _PrunedDistance.apply(one, of_one, *said)  # type: ignore[no-untyped-call]
            for one, of_one in zip(each, own, strict=True)
        ]
        return tuple(map(torch.stack, zip(*parts, strict=True))), (0, 0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return ((slopes[0] * slope).to(ctx.dtype), None, None, None, None, None)


def _in_chunks(value: Tensor, positions: int) -> Sequence[Tensor]:
    """Rows of `[C, K]` together whose inputs at kept entries fit in memory."""
    return torch.split(value, max(CHUNK // (value.shape[1] * positions), 1))


def _explained(
    inputs: Tensor, places: Tensor, kept: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Best coefficients `[C, P]` of rows in `inputs` `[P, F]`, and what they leave, `[C, F]`."""
    at_kept = inputs[:, places.flatten()].view(len(inputs), *places.shape)
    at_kept = at_kept.transpose(0, 1) * kept[:, None]
    factor, _ = torch.linalg.cholesky_ex(_with_ridge(at_kept @ at_kept.mT, COEFFICIENTS))
    best = torch.cholesky_solve(at_kept @ numbers[..., None], factor)
    rest = (numbers - (best.mT @ at_kept)[:, 0]) * kept
    left = inputs.new_zeros(len(places), inputs.shape[1]).scatter_add_(1, places, rest)
    return best[..., 0], left


def _with_ridge(squares: Tensor, share: float) -> Tensor:
    """`[…, P, P]` with so much of its mean diagonal added to it."""
    mean = squares.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-300)
    return squares + share * mean[..., None, None] * torch.eye(squares.shape[-1]).to(squares)


def find_pruned_spans(
    reader: InputReader, target: Mapping[str, Tensor], *, private: Collection[str] = ()
) -> tuple[PrunedSpan, ...]:
    """What the kept entries of each layer's gradient give away, in the order of the forward pass.

    Layers of several groups are left out, and rows that kept hardly more than there are positions,
    or would take too long (`WORK`).

    Args:
        reader: Of the network.
        target: Mean gradient by parameter name; zeros were not sent.
        private: Names of local parameters, as in `find_spans`.
    """
    spans: dict[str, PrunedSpan] = {}
    given, work = _given(reader, target, private), WORK * reader.count
    for name, one in sorted(given.items(), key=lambda item: item[1].cost):
        affordable = int(work / one.work)
        sent, rows = one.sent, one.rows
        if affordable < len(sent):
            fullest = sent.sum(1).argsort(descending=True, stable=True)[:affordable]
            sent, rows = sent[fullest], rows[fullest]
        if not len(sent):
            continue
        work -= len(sent) * one.work
        rows = rows / rows.norm(dim=1, keepdim=True)
        places = sent.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : one.most]
        kept = sent.gather(1, places).double()
        numbers = kept.sum(1)
        empty = rows.new_empty(1, 0, rows.shape[1])
        spans[name] = PrunedSpan(
            name=name,
            positions=one.position.positions,
            basis=empty,
            weights=empty[..., 0],
            whole=False,
            full=False,
            floor=0.0,
            certain=one.position.certain,
            places=places,
            kept=kept,
            numbers=rows.gather(1, places) * kept,
            certainty=(numbers - one.total) / numbers,
        )
    return tuple(spans[name] for name in given if name in spans)


@dataclass(frozen=True)
class _Given:
    """The rows of a layer's gradient that kept enough to say something.

    Attributes:
        position: Where the weight is used.
        sent: `[C, F]`, which entries were kept.
        rows: `[C, F]`.
        total: Positions of the whole batch.
    """

    position: Position
    sent: Tensor
    rows: Tensor
    total: int

    @property
    def most(self) -> int:
        """Entries of the row that kept the most."""
        return int(self.sent.sum(1).max())

    @property
    def work(self) -> float:
        """Multiplications a row."""
        return float(self.total**2 * self.most)

    @property
    def cost(self) -> float:
        """Multiplications a number that coefficients leave over."""
        return self.work * len(self.sent) / float((self.sent.sum(1) - self.total).sum())


def _given(
    reader: InputReader, target: Mapping[str, Tensor], private: Collection[str]
) -> dict[str, _Given]:
    """By weight, in the order of the forward pass."""
    given = {}
    for name, position in reader.positions(private).items():
        if name not in target or reader.derives(name):  # these need rows as a whole
            continue
        matrices = matrices_of(reader.layers[name][0], target[name].detach()).double()
        if len(matrices) > 1:
            continue
        total = reader.count * position.positions
        sent = matrices[0] != 0
        enough = sent.sum(1) > SPARE * total + 1
        if bool(enough.any()):
            given[name] = _Given(position, sent[enough], matrices[0][enough], total)
    return given
