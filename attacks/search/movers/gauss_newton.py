"""Solve for the images whose feature maps are known: Gauss–Newton on the network itself.

A known map is more numbers, to six digits, than a small gray image has pixels: no match to balance
but a square system to solve. A first-order search stalls on it, as the singular values of its
Jacobian span four decades and more; Levenberg–Marquardt (Marquardt, SIAM 1963) does not, from any
start that is roughly right. Each image is solved by itself, so a batch costs its images.

One direction hardly shows. Bodies that normalize, have no biases and pad with their zero are blind
to contrast: only the ε of the normalizations tells 0.5 + c·(x − 0.5) from x, in the fifth digit. So
residuals are computed in double precision, and at the end the contrast is read off the gradient.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, linearize, vjp, vmap

from fedaudit.attacks.evidence.conjugate_gradients import Parts, conjugate_gradients
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.contrast import settle_contrast
from fedaudit.attacks.search.map_matching import Goal, SpanGoal, goal_of, span_goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.mover import Plan, Task
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.models.facenet import FaceNet
from fedaudit.models.module_copy import copy_detached

# Set by hand; what they reach is measured by benchmarks/leakage_over_training.py.
SOLVABLE = 1e-3
"""Floor of a goal up to which solving for it is worth while."""
DENSE = 2048
"""Unknowns up to which the Jacobian is formed; beyond, conjugate gradients on products with it."""
INNER = 100
"""Conjugate gradient steps for one step of the solver."""
CHUNK = 128
"""Columns of the Jacobian a pass."""
EASE = 10.0
"""The damping falls by this factor after a step that helped …"""
TIGHTEN = 4.0
"""… and rises by this one while a step does not."""
TRIES = 6
"""Dampings tried in a step before an image is left as it is."""

Map = Callable[[Tensor], Tensor]
"""Variable, flat `[n]` → unit direction of the map that it gives, flat `[F]`."""


def solve(
    exact: Map,
    quick: Map,
    goal: Tensor,
    start: Tensor,
    *,
    steps: int,
    damping: float,
    floor: float = 0.0,
    report: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """The variable `[n]` whose map has the unit direction `goal` `[F]`, by Levenberg–Marquardt.

    All in double precision; the start where no step helped.

    Args:
        exact: The map in double precision, for residuals.
        quick: The same in single precision, for the Jacobian, which each step forms once.
        goal: `[F]`, unit length.
        start: `[n]`.
        steps: At most so many.
        damping: First damping, in units of the Jacobian's mean squared column.
        floor: Stop at a residual of this length: beyond it the error of `goal` would be fitted.
        report: Called with the residual's length after every step.
    """
    solution = start
    with torch.no_grad():
        residual = goal - exact(solution)
        for _ in range(steps):
            length = residual.norm()
            if length <= floor:
                break
            system = _Dense if len(solution) <= DENSE else _Products
            linear = system(exact, quick, solution, residual)
            before = solution
            for _ in range(TRIES):
                step = linear.step(damping)
                left = goal - exact(before + step)
                if left.norm() < length:
                    solution, residual, damping = before + step, left, damping / EASE
                    break
                damping *= TIGHTEN
            report(float(residual.norm()))
            if solution is before:
                break
    return solution


class _Dense:
    """The map at one place as a matrix J; steps are exact."""

    def __init__(self, exact: Map, quick: Map, place: Tensor, residual: Tensor) -> None:
        del exact
        self.slope = _jacobian(quick, place.float()).double()
        self.residual = residual
        self.wide = self.slope.shape[1] > self.slope.shape[0]
        self.gram = self.slope @ self.slope.T if self.wide else self.slope.T @ self.slope
        self.unit = self.slope.square().sum() / self.slope.shape[1]

    def step(self, damping: float) -> Tensor:
        """Minimizer of |residual − J d|² + damping · unit · |d|²."""
        system = self.gram + damping * self.unit * torch.eye(len(self.gram)).to(self.gram)
        if self.wide:
            move: Tensor = self.slope.T @ torch.linalg.solve(system, self.residual)
        else:
            move = torch.linalg.solve(system, self.slope.T @ self.residual)
        return move


class _Products:
    """The map at one place as products with J and its transpose; steps are truncated."""

    def __init__(self, exact: Map, quick: Map, place: Tensor, residual: Tensor) -> None:
        del quick
        self.along = _differential(exact, place)
        pullback: Any = vjp(exact, place)
        self._pull: Callable[[Tensor], tuple[Tensor]] = pullback[1]
        self.right = self._pull(residual)[0]
        # A random vector's image has the mean squared column's length, as far as is needed here.
        noise = torch.randn(len(place), generator=torch.Generator().manual_seed(0)).to(place)
        self.unit = self.along(noise).square().sum() / noise.square().sum()

    def step(self, damping: float) -> Tensor:
        """As in `_Dense`, but truncated."""

        def damped(way: Parts) -> Parts:
            return [self._pull(self.along(way[0]))[0] + damping * self.unit * way[0]]

        (move,) = conjugate_gradients(damped, [self.right], steps=INNER, tolerance=1e-6)
        return move


@dataclass
class GaussNewton:
    """A mover that solves for each image in turn.

    Does nothing where no image's map is known, or not to three digits. The variables are pixels.

    Args:
        task: What is searched: pixels. Its penalty has no effect, there is nothing to balance.
        plan: `steps` Jacobians an image; `lr` is the first damping.
    """

    task: Task
    plan: Plan

    def __post_init__(self) -> None:
        self.done = 0

    def run(self, save: Callable[[], None] = lambda: None) -> None:
        """Solve for all images that are left; `save` is called after each."""
        matching = self.task.matching
        assert isinstance(matching, Matching | SpanMatching)  # by maps alone, it is not used
        evidence = matching.evidence
        goal: Goal | SpanGoal | None = None
        if isinstance(matching, SpanMatching):
            goal = span_goal_of(evidence)
        elif matching.has_features:
            goal = goal_of(evidence, exact=True)
        if goal is None or goal.floor > SOLVABLE or not isinstance(evidence.model, FaceNet):
            return
        quick = _frozen(evidence.model).float()
        exact = _frozen(evidence.model).double()
        for i in range(self.done, len(self.task.variables)):
            if self.task.trace.time_is_up:
                break
            for r, variable in enumerate(self.task.variables[i].detach()):
                solution = solve(
                    self._map(exact, goal, variable.shape),
                    self._map(quick, goal, variable.shape),
                    goal.directions[i],
                    variable.flatten().double(),
                    steps=self.plan.steps,
                    damping=self.plan.lr,
                    floor=goal.floor,
                    report=self.task.trace.add,
                )
                with torch.no_grad():
                    self.task.variables[i][r].copy_(solution.view(variable.shape))
            self.done = i + 1
            save()
        if isinstance(goal, Goal):  # spans of several layers show the contrast as well
            self._settle(evidence, exact)

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs; by name."""
        state = {f"value/{i}": value.detach() for i, value in enumerate(self.task.variables)}
        return {"done": torch.tensor(self.done), **state}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.done = int(state["done"])
        with torch.no_grad():
            for i, variable in enumerate(self.task.variables):
                variable.copy_(state[f"value/{i}"])

    def _settle(self, evidence: Evidence, exact: FaceNet) -> None:
        """The contrast of each image of each restart, by the gradient of the earliest layer."""
        for r in range(len(self.task.variables[0])):
            pixels = torch.stack([v[r].detach() for v in self.task.variables])
            images = settle_contrast(evidence, exact, self.task.decode, pixels.double())
            with torch.no_grad():
                for variable, one in zip(self.task.variables, images, strict=True):
                    variable[r].copy_(one)

    def _map(self, model: FaceNet, goal: Goal | SpanGoal, shape: torch.Size) -> Map:
        return lambda flat: goal.reached(model, self.task.decode(flat.view(1, *shape)))[0]


def _frozen(model: FaceNet) -> FaceNet:
    """A copy whose parameters want no gradients."""
    frozen = copy_detached(model)
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    return frozen


def _differential(function: Map, place: Tensor) -> Map:
    """The function's differential; what does not depend on directions is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.fx warns of its own names for constants
        _, along = linearize(function, place)
    differential: Map = along
    return differential


def _jacobian(function: Map, place: Tensor) -> Tensor:
    """`[F, n]`, in forward mode: a pass of `CHUNK` columns costs less than tracing it once."""

    def along(direction: Tensor) -> Tensor:
        slope: Tensor = jvp(function, (place,), (direction,))[1]
        return slope

    unit = torch.eye(len(place)).to(place)
    return torch.cat([vmap(along)(part) for part in torch.split(unit, CHUNK)]).T
