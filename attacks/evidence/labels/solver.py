"""The images of a batch as their head saw them, one by one, from the head's gradient alone.

`benchmarks/label_inference.py` measures the thresholds, on ORL at 32 px, fresh and trained.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_gradient import upstream_of
from fedaudit.attacks.evidence.labels.leading_svd import leading_svd

ARRIVED, STUCK = 1e-8, 1e3
"""Length outside at which a start has arrived, and damping at which it has nowhere to go."""
RANK_TOLERANCE = 1e-6
"""Singular values of a single-precision gradient below this share of the first are rounding."""
EXPLAINED = 1e-3
"""Length outside the column space, of e scaled to 1, that rounding explains."""
WHOLE = 0.1
"""Relative distance from a whole number of copies that rounding explains."""
APART = 0.2
"""Largest pairing of two solutions that count as two images; exact ones have 0."""
NOISE = 0.1
"""Share of the last singular value of the batch that the next may have: more is noise."""

MEMORY = 4_000_000
"""Entries of a Jacobian that are held at once: a few hundred megabytes with all that it takes."""
WORK = 100_000_000
"""Entries of Jacobians in all: about 8 CPU seconds. Heads of a hundred classes stay far below."""
STARTS, USUAL = 4, 10
"""Starts for each class in the first round, and steps that most of them take."""

MOST = 0.5
"""Share of P that may be left where most images were found."""
SOUND = 1e-5
"""Share of the first singular value that the batch's last must have to be more than rounding."""


@dataclass(frozen=True)
class HeadEquation:
    """P = Σ_i e_i x_iᵀ in its singular vectors, in double precision.

    Attributes:
        columns: `[K, r]`, orthonormal: the space of the e_i.
        sizes: `[r]`.
        rows: `[r, D]`, orthonormal: the space of the x_i.
        weight: `[K, r]`, A in the coordinates of the row space: D of them would cost every step.
        bias: `[K]`, b (zeros where there is none).
        unit: x is a unit vector.
        criterion: `(scores [n, K], labels [n]) → mean loss`.
    """

    columns: Tensor
    sizes: Tensor
    rows: Tensor
    weight: Tensor
    bias: Tensor
    unit: bool
    criterion: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def of(
        cls,
        product: Tensor,
        count: int,
        weight: Tensor,
        bias: Tensor | None,
        criterion: Callable[[Tensor, Tensor], Tensor],
        *,
        unit: bool,
    ) -> "HeadEquation":
        """Take P `[K, D]` of `count` images apart."""
        columns, sizes, rows = leading_svd(product.double(), count)
        rank = min(count, int((sizes > RANK_TOLERANCE * sizes[0]).sum()))
        weight = weight.double()
        return cls(
            columns[:, :rank],
            sizes[:rank],
            rows[:rank],
            weight @ rows[:rank].T,
            weight.new_zeros(len(weight)) if bias is None else bias.double(),
            unit,
            criterion,
        )

    def upstream(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """e(x, c) `[n, K]` for x `[n, r]` given by their coordinates in the row space."""
        places = F.normalize(coordinates, dim=1) if self.unit else coordinates
        return upstream_of(self.criterion, places @ self.weight.T + self.bias, labels)

    def outside(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """The part of each e(x, c), scaled to length 1, outside the column space, `[n, K]`."""
        e = self.upstream(coordinates, labels)
        e = e / (e.norm(dim=1, keepdim=True) + 1e-30)
        outside: Tensor = e - (e @ self.columns) @ self.columns.T
        return outside

    def normal(self, coordinates: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """JᵀJ `[n, r, r]` and Jᵀ·out `[n, r]` of `outside`, a few of the n at a time."""
        count, rank = coordinates.shape
        square, slope = out.new_empty(count, rank, rank), out.new_empty(count, rank)
        for rows in torch.arange(count).split(max(1, MEMORY // (out.shape[1] * rank))):  # type: ignore[no-untyped-call]
            J = self._slopes(coordinates[rows], labels[rows])
            square[rows] = J @ J.mT
            slope[rows] = (J @ out[rows, :, None])[:, :, 0]
        return square, slope

    def _slopes(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """The slopes of `outside` along each coordinate, `[n, r, K]`.

        Those of e along the scores are second slopes of a loss, and so symmetric: one backward
        pass through e gives what a forward pass would.
        """
        length = coordinates.norm(dim=1, keepdim=True)
        places = coordinates / length if self.unit else coordinates
        moved = torch.eye(places.shape[1]).to(places).expand(len(places), -1, -1)
        if self.unit:
            moved = (moved - places[:, :, None] * places[:, None]) / length[:, :, None]
        scores = (places @ self.weight.T + self.bias).requires_grad_()
        e = upstream_of(self.criterion, scores, labels, differentiable=True)
        (slopes,) = torch.autograd.grad(
            e, scores, (moved @ self.weight.T).transpose(0, 1), is_grads_batched=True
        )
        e, slopes = e.detach(), slopes.transpose(0, 1)
        size = e.norm(dim=1)[:, None, None] + 1e-30
        unit = e[:, None] / size
        slopes = (slopes - unit * (slopes * unit).sum(2, keepdim=True)) / size
        outside: Tensor = slopes - (slopes @ self.columns) @ self.columns.T
        return outside

    def solve(
        self, starts: Tensor, labels: Tensor, steps: int = 30, work: float = math.inf
    ) -> tuple[Tensor, Tensor, float]:
        """Levenberg–Marquardt from `starts [n, r]`: places `[n, r]`, how much is outside, `[n]`.

        Also what is left of `work`, the entries of Jacobians that may be computed.
        """
        place, left = starts.clone(), self.outside(starts, labels)
        damping = place.new_full((len(place),), 1e-2)
        eye = torch.eye(place.shape[1]).to(place)
        for _ in range(steps):
            # Those that have arrived, or are stuck, cost nothing more.
            moving = ((left.norm(dim=1) > ARRIVED) & (damping < STUCK)).nonzero()[:, 0]
            work -= len(moving) * left.shape[1] * starts.shape[1]
            if not len(moving) or work < 0:
                break
            here, out = place[moving], left[moving]
            square, slope = self.normal(here, labels[moving], out)
            scale = square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
            square = square + (damping[moving] * scale)[:, None, None] * eye
            move = torch.linalg.solve_ex(square, -slope[:, :, None])[0][:, :, 0]
            dummy = here + move.nan_to_num(0)
            residual = self.outside(dummy, labels[moving]).nan_to_num(1e3)
            better = residual.norm(dim=1) < out.norm(dim=1)
            place[moving] = torch.where(better[:, None], dummy, here)
            left[moving] = torch.where(better[:, None], residual, out)
            step = torch.where(better, damping[moving] * 0.3, damping[moving] * 4)
            damping[moving] = step.clamp_min(1e-9)
        places = F.normalize(place, dim=1) if self.unit else place
        return places, left.norm(dim=1), work

    def pairs(self, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The e `[n, K]` of solutions, and how each pairs with each, e_iᵀ P⁺ᵀ x_j, `[n, n]`."""
        e = self.upstream(places, labels)
        return e, (e @ self.columns / self.sizes) @ places.T


@dataclass(frozen=True)
class Solved:
    """The images of a batch as far as they were solved for.

    Attributes:
        labels: `[n]` int64, n ≤ N, ascending.
        places: `[n, D]`, the head's inputs in that order.
        rest: `[K, D]`, what of P the images do not explain.
        left: N − n.
        unexplained: |rest| / |P|; rounding alone leaves far below 1e-3.
        sound: P has N singular values above rounding, and the images make up most of it, where
            false ones would add to what is left.
    """

    labels: Tensor
    places: Tensor
    rest: Tensor
    left: int
    unexplained: float
    sound: bool

    @property
    def complete(self) -> bool:
        """Every image was found and together they are the gradient: nothing is left to guess."""
        return self.left == 0 and self.unexplained < EXPLAINED


def is_affordable(classes: int, tried: int, count: int) -> bool:
    """Whether a first round over `tried` of all classes is within `WORK`, for `count` images."""
    return tried * STARTS * USUAL * classes * count <= WORK


def solve_head(
    product: Tensor,
    count: int,
    weight: Tensor,
    bias: Tensor | None,
    criterion: Callable[[Tensor, Tensor], Tensor],
    *,
    unit: bool,
    generator: torch.Generator,
    classes: Tensor | None = None,
    starts: int = STARTS,
    rounds: int = 5,
    work: float = WORK,
) -> Solved:
    """Find the images of a batch one by one, and take each off the sum.

    Nothing is assumed of the images, their number a class, or how far the network is trained. Needs
    2 N < K: K equations hold N unknowns. Where the gradient is noisy, or the mean over several
    steps, nothing passes the checks and nothing is claimed.

    Args:
        product: P `[K, D]`, the gradient of the *summed* loss with respect to A; if its scale is
            wrong (a learning rate that is not known), the solutions say so and set it right.
        count: Number of images N.
        weight: A `[K, D]`, unit rows for heads on unit vectors.
        bias: b `[K]` or None.
        criterion: The head's loss, mean over the batch.
        unit: The head sees unit vectors.
        generator: Of the starts.
        classes: Those that are tried; None tries all.
        starts: Starts for each class in the first round; each further round has twice as many.
        rounds: Most rounds; one finds most of the batch as a rule.
        work: Entries of Jacobians after which no more is tried.
    """
    candidates = torch.arange(len(weight)) if classes is None else classes
    rest, left = product.double(), count
    whole = max(float(rest.norm()), 1e-300)
    sizes = leading_svd(rest, count)[1]
    labels: list[int] = []
    places: list[Tensor] = []
    for attempt in range(rounds):
        which = candidates.to(rest.device).repeat_interleave(starts)
        starts += starts
        if left == 0 or work < 0 or 2 * left >= len(weight) or _is_noise(rest, left, count):
            break
        hopeless = not labels or (not unit and float(rest.norm()) > MOST * whole)
        equation = HeadEquation.of(rest, left, weight, bias, criterion, unit=unit)
        begin = _starts(equation, rest, which, left, generator)
        place, outside, work = equation.solve(begin, which, work=work)
        order = outside.argsort(stable=True)
        order = order[outside[order] < EXPLAINED]
        if not len(order):
            if attempt and hopeless:
                break  # two sets of starts without a solution: the equations do not hold
            continue
        e, pairs = equation.pairs(place[order], which[order])
        choice = _consistent(pairs, left)
        if not choice:
            if attempt and hopeless:
                break
            if labels:
                continue
            scale = _scale(pairs.diagonal())
            rest, whole = rest * scale, whole * scale
        for k, copies in choice:
            x = equation.rows.T @ place[order[k]]
            labels += [int(which[order[k]])] * copies
            places += [x] * copies
            share = 1 / float(pairs[k, k])
            rest = rest - share * torch.outer(e[k], x)
            left -= copies
    label_tensor = torch.tensor(labels, dtype=torch.int64)
    ascending = label_tensor.argsort(stable=True)
    table = torch.stack(places) if places else rest.new_zeros(0, rest.shape[1])
    return Solved(
        labels=label_tensor[ascending],
        places=table[ascending.to(rest.device)],
        rest=rest,
        left=left,
        unexplained=float(rest.norm()) / whole,
        sound=len(sizes) >= count
        and bool(sizes[count - 1] > SOUND * sizes[0])
        and float(rest.norm()) < MOST * whole,
    )


def _consistent(pairs: Tensor, left: int) -> list[tuple[int, int]]:
    """Solutions, best first, that are images and no two the same: index and number of copies.

    A solution that stands for k images alike to rounding pairs with itself to 1/k.
    """
    table = pairs.tolist()
    choice: list[tuple[int, int]] = []
    for k, row in enumerate(table):
        if not left:
            break
        copies = 1 / row[k] if row[k] > 0.5 / left else 0.0
        whole = round(copies)
        if not 1 <= whole <= left or abs(copies - whole) > WHOLE * whole:
            continue
        if all(max(abs(row[j]), abs(table[j][k])) * max(whole, n) < APART for j, n in choice):
            choice.append((k, whole))
            left -= whole
    return choice


def _scale(itself: Tensor) -> float:
    """The sum's factor, by solutions that agree that each pairs with itself to 1; else 1."""
    itself = itself[itself > 1e-9]
    if not len(itself):
        return 1.0
    middle = itself.median()
    agree = ((itself - middle).abs() < WHOLE * middle).double().mean()
    return float(middle) if agree > 0.5 else 1.0


def _is_noise(rest: Tensor, left: int, count: int) -> bool:
    """Whether more than a batch of `count` stands behind the sum."""
    if left < count:
        return False
    sizes = leading_svd(rest, count + 1)[1]
    if len(sizes) <= count:
        return False
    return bool(sizes[count] > NOISE * sizes[count - 1] and sizes[count] > 1e-4 * sizes[0])


def _starts(
    equation: HeadEquation, product: Tensor, labels: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Around each class's own row and around the strongest one: they point away from their images.

    The distance from them rises, and for heads without normalization the length, as e gets shorter.
    """
    inner = -(product @ equation.rows.T)
    toward = F.normalize(inner[labels], dim=1)
    toward[::2] = F.normalize(inner[inner.norm(dim=1).argmax()], dim=0)
    noise = torch.randn(toward.shape, generator=generator, dtype=torch.float64).to(toward)
    turn = torch.arange(len(labels), device=toward.device)
    distance = torch.linspace(0.1, 1.0, 8).to(toward)[turn % 8]
    spread = toward + distance[:, None] * noise / toward.shape[1] ** 0.5
    if equation.unit:
        return F.normalize(spread, dim=1)
    longer = torch.tensor([1.0, 1.0, 3.0, 10.0]).to(toward)[turn % 4]
    starts: Tensor = spread * (longer * float(product.norm()) / count**0.5)[:, None]
    return starts
