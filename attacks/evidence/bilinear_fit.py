"""Inputs of a layer and upstream gradients whose product has the numbers that are known of it.

Both are unknown, and a product is linear in each. So the squares of what is missed, in units of the
numbers' errors, fall by damped Gauss–Newton steps on both at once (Levenberg–Marquardt), each of
them by conjugate gradients: a product with the Jacobian costs four of matrices. Where one factor is
solved for after the other, as low-rank matrices are often completed, the last of it takes many
times as long.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.conjugate_gradients import Parts, conjugate_gradients
from fedaudit.attacks.evidence.layer_unfolding import matrices_of, rows_of

FLOOR = 0.01
"""Least error of a number, in units of the root mean square of its row: what is known better would
count for all others."""
PRODUCTS, TOLERANCE = 60, 1e-6
"""Products with the Jacobian in a step, at most, and relative square of what is left at its end."""
STALLED, WINDOW = 1e-3, 4
"""Relative gain over as many steps below which they end."""
DAMPING, LEAST_DAMPING = 0.1, 1e-6
"""First damping, in units of the Jacobian's mean square, and least."""
RIDGE = 1e-3
"""Likewise of the first upstream gradients, which are solved for alone."""

Pair = tuple[Tensor, Tensor]
"""Inputs of a layer, and upstream gradients `[g, P, r]`; or changes of both."""


@dataclass(frozen=True)
class Problem:
    """Known numbers of a gradient.

    Attributes:
        layer: Whose weight it is of.
        numbers: `[g, r, F]`, rows of one size.
        weights: `[g, r, F]` in [0, 1], how much each counts; 0 where a number is not known.
        scale: `[g, r, 1]`, the size of each row.
    """

    layer: nn.Module
    numbers: Tensor
    weights: Tensor
    scale: Tensor

    @classmethod
    def of(cls, layer: nn.Module, numbers: Tensor, errors: Tensor) -> "Problem":
        """Of numbers like the weight, and their errors, infinite where they are not known."""
        numbers, errors = matrices_of(layer, numbers), matrices_of(layer, errors)
        given = errors.isfinite()
        filled = (given & (numbers != 0)).sum(2, keepdim=True)
        size = (numbers.square().sum(2, keepdim=True) / filled.clamp_min(1)).sqrt()
        unit = numbers / size.clamp_min(1e-300)
        deviation = errors.where(given, size) / size.clamp_min(1e-300)
        weights = FLOOR / deviation.clamp_min(FLOOR) * given * (size > 0)
        return cls(layer, unit.float(), weights.float(), size)

    @property
    def filled(self) -> Tensor:
        """Which numbers are known, and not zero."""
        return (self.weights > 0) & (self.numbers != 0)

    def without(self, left_out: Tensor) -> "Problem":
        """The same, less some of the numbers."""
        return replace(self, weights=self.weights * ~left_out)

    def fullest(self, enough: float) -> "Problem":
        """The rows of most known numbers, as many as are enough; of one group of channels."""
        if len(self.numbers) > 1:
            return self
        given = self.filled.sum(2)[0]
        order = given.argsort(descending=True, stable=True)
        rows = order[: int((given[order].cumsum(0) < enough).sum()) + 1]
        parts = (self.numbers[:, rows], self.weights[:, rows], self.scale[:, rows])
        return Problem(self.layer, *parts)

    def product(self, inputs: Tensor, upstream: Tensor) -> Tensor:
        """The gradient `[g, r, F]`."""
        return upstream.mT @ rows_of(self.layer, inputs)

    def missed(self, inputs: Tensor, upstream: Tensor) -> Tensor:
        """What is known less the product, weighed."""
        return self.weights * (self.numbers - self.product(inputs, upstream))


def fit(problem: Problem, inputs: Tensor, steps: int) -> Pair | None:
    """Inputs and upstream gradients whose product is as given; None of nothing.

    Args:
        problem: What is known.
        inputs: To begin with, `[N, …]`.
        steps: At most.
    """
    inputs = inputs.detach().float()
    length = inputs.square().mean().sqrt()
    if not length > 0 or not bool((problem.weights > 0).any()):
        return None
    jacobian = _Jacobian(problem, inputs)
    now = _balanced(*jacobian.with_upstream(inputs / length))
    left = problem.missed(*now)
    errors, damping = [float(left.square().sum())], DAMPING
    for _ in range(steps):
        change = jacobian.step(now, left, damping)
        tried = now[0] + change[0], now[1] + change[1]
        rest = problem.missed(*tried)
        error = float(rest.square().sum())
        if error < errors[-1]:
            now, left, damping = _balanced(*tried), rest, max(damping / 3, LEAST_DAMPING)
        else:
            error, damping = errors[-1], 5 * damping
        errors.append(error)
        if len(errors) > WINDOW and errors[-1 - WINDOW] - error < STALLED * error:
            break
    return now


class _Jacobian:
    """Of a product, by its factors; steps of inputs are in units of what is known of channels."""

    def __init__(self, problem: Problem, like: Tensor) -> None:
        self.problem, self.squares = problem, problem.weights.square()
        self.leaf = like.clone().requires_grad_()
        with torch.enable_grad():  # once: rows are linear in inputs, whatever these are
            self.rows = rows_of(problem.layer, self.leaf)
        filled = problem.filled
        total = (problem.numbers.square() * filled).sum(1, keepdim=True)
        columns = (total / filled.sum(1, keepdim=True).clamp_min(1)).sqrt()
        even = torch.ones_like(self.rows)
        units = self.to_inputs(columns * even) / self.to_inputs(even).clamp_min(1)
        self.units = units.clamp_min(1e-3 * units.max())

    def to_inputs(self, of_rows: Tensor) -> Tensor:
        """The adjoint of `rows_of`."""
        return torch.autograd.grad(self.rows, self.leaf, of_rows, retain_graph=True)[0]

    def with_upstream(self, inputs: Tensor) -> Pair:
        """Inputs, and the upstream gradients that go best with them."""
        rows = rows_of(self.problem.layer, inputs)

        def normal(change: Sequence[Tensor]) -> list[Tensor]:
            return [rows @ (self.squares * (change[0].mT @ rows)).mT]

        aim = [rows @ (self.squares * self.problem.numbers).mT]
        ridge = RIDGE * float(self.squares.sum() / self.squares.shape[1])
        return inputs, _solve(normal, aim, ridge)[0]

    def step(self, now: Pair, left: Tensor, damping: float) -> Pair:
        """The change of both by which what is left over would vanish, damped."""
        layer, units, upstream = self.problem.layer, self.units, now[1]
        rows = rows_of(layer, now[0])

        def normal(change: Sequence[Tensor]) -> list[Tensor]:
            moved = upstream.mT @ rows_of(layer, units * change[0]) + change[1].mT @ rows
            moved = self.squares * moved
            return [units * self.to_inputs(upstream @ moved), rows @ moved.mT]

        weighed = self.problem.weights * left
        aim = [units * self.to_inputs(upstream @ weighed), rows @ weighed.mT]
        _, height, width = self.squares.shape
        places = now[0].numel() / now[0].shape[1]  # positions to a number of a channel
        high = height * rows.shape[1] / places
        even = width * rows.square().mean() + high * upstream.square().mean()
        by, also = _solve(normal, aim, damping * float(self.squares.mean() * even) / 2)
        return units * by, also


def _solve(
    apply: Callable[[Parts], Sequence[Tensor]], aim: Sequence[Tensor], ridge: float
) -> list[Tensor]:
    """What a symmetric operator, and so much of the identity, sends to the aim."""

    def damped(change: Parts) -> Parts:
        return [one + ridge * by for one, by in zip(apply(change), change, strict=True)]

    return conjugate_gradients(damped, aim, steps=PRODUCTS, tolerance=TOLERANCE**0.5)


def _balanced(inputs: Tensor, upstream: Tensor) -> Pair:
    """The same product of factors that are as large as each other."""
    ratio = (upstream.square().mean() / inputs.square().mean()).clamp_min(1e-30) ** 0.25
    return inputs * ratio, upstream / ratio
