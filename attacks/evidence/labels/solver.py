"""The images of a batch as their head saw them, one by one, from the head's gradient alone.

`benchmarks/label_inference.py` measures the thresholds, on ORL at 32 px, fresh and trained.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_equation import HeadEquation
from fedaudit.attacks.evidence.labels.leading_svd import leading_svd

EXPLAINED = 1e-3
"""Length outside the column space, of e scaled to 1, that rounding explains."""
WHOLE = 0.1
"""Relative distance from a whole number of copies that rounding explains."""
APART = 0.2
"""Largest pairing of two solutions that count as two images; exact ones have 0."""
NOISE = 0.1
"""Share of the last singular value of the batch that the next may have: more is noise."""

WORK = 100_000_000
"""Entries of Jacobians in all: about 8 CPU seconds. Heads of a hundred classes stay far below."""
STARTS, USUAL = 4, 10
"""Starts for each class in the first round, and steps that most of them take."""

MOST = 0.5
"""Share of P that may be left where most images were found."""
SOUND = 1e-5
"""Share of the first singular value that the batch's last must have to be more than rounding."""


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
