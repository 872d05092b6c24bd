"""Moves the variables of a batch: all at once, or round-wise (Liu et al. 2021).

Round-wise: one image of the batch moves, the others are held. Without batch norm in training mode
the sum of the *others'* gradients is a constant then: a step of a round costs one single-image
step. Restarts stand side by side in the first axis of every variable and share each pass (`vmap`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients, total
from fedaudit.attacks.search.movers.gradient_descent import SCHEDULES, Search
from fedaudit.attacks.search.movers.mover import Plan, Task

# Set by hand; what it reaches is measured by benchmarks/unknown_head.py.
FREE_LR = 0.1
"""Learning rate of the free variables, which start each stage at unit length."""
TURN = 10
"""Steps of a joint search between two looks at the clock and the checkpoint."""
STALLED = 1e-3
"""Relative improvement over `patience` steps below which a search has stalled."""


@dataclass
class Movement:
    """A stage in progress: can stop after any turn, and go on from what it saved.

    Args:
        task: What is searched.
        plan: Steps, rounds, rates.
        free: The free variables that go with the task's; those of the engine if not given.
        fixed: What stands in for local layers; that of the engine if not given.
    """

    task: Task
    plan: Plan
    free: Sequence[Tensor] | None = None
    fixed: Sequence[Tensor] | None = None

    def __post_init__(self) -> None:
        count = len(self.task.variables)
        self.round_wise = bool(self.plan.rounds) and count > 1 and self.task.matching.separable
        groups = [(i,) for i in range(count)] if self.round_wise else [tuple(range(count))]
        self.searches = {which: self._search(which) for which in groups}
        self.turn = 0

    def run(self, save: Callable[[], None] = lambda: None) -> None:
        """Move until the plan is done, stalls or time is up; then restore the best values."""
        shares = (
            [self._share(i) for i in range(len(self.task.variables))] if self.round_wise else []
        )
        for which, steps in list(self._turns())[self.turn :]:
            others = None
            if shares:
                others = total([share for i, share in enumerate(shares) if i != which[0]])
            is_stuck = self._move(which, steps, others)
            if shares:
                shares[which[0]] = self._share(which[0])
            self.turn += 1
            save()
            if is_stuck or self.task.trace.time_is_up:
                break
        for search in self.searches.values():
            search.restore()

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs; by name."""
        state = {"turn": torch.tensor(self.turn)}
        for k, search in enumerate(self.searches.values()):
            state |= {f"{k}/{name}": value for name, value in search.state().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.turn = int(state["turn"])
        for k, search in enumerate(self.searches.values()):
            prefix = f"{k}/"
            search.load(
                {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            )

    def _turns(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Who moves, for how many steps, in order."""
        steps = self.plan.steps
        if not self.round_wise:
            every = next(iter(self.searches))
            for start in range(0, steps, TURN):
                yield every, min(TURN, steps - start)
            return
        rounds = self.plan.rounds
        for number in range(rounds):
            # Spread evenly, also where the steps do not divide by the rounds.
            share = steps * (number + 1) // rounds - steps * number // rounds
            for which in self.searches:
                yield which, share

    def _move(self, which: tuple[int, ...], steps: int, others: Gradients | None) -> bool:
        """Some steps of the images `which`; whether the search has stalled."""
        search, patience = self.searches[which], self.plan.patience
        moving = [self.task.variables[i] for i in which]
        free = [*self._free(which), *self._constants()]
        for number in range(steps):
            part = number if search.optimizer == "adam" else None
            values = search.step(partial(self._losses, which, moving, free, others, part))
            self.task.trace.add(float(values.min()))
            if search.stalled(patience, STALLED):
                return not self.round_wise
            if search.optimizer == "lbfgs" and self.task.is_exact():
                return True
        return False

    def _losses(
        self,
        which: tuple[int, ...],
        moving: Sequence[Tensor],
        free: Sequence[Tensor],
        others: Gradients | None,
        part: int | None,
    ) -> Tensor:
        """The loss of each restart, `[R]`, in the `part`-th step of a turn."""
        task = self.task

        def one(
            items: Sequence[Tensor], rows: Sequence[Tensor], gradient_of_others: Gradients | None
        ) -> tuple[Tensor, Tensor]:
            variable = torch.stack(list(items))
            images = task.decode(variable)
            dummy, distance = task.matching.gradients(
                images, which, rows, functional=restarts > 1, part=part
            )
            if gradient_of_others is not None:
                dummy = total([gradient_of_others, dummy])
            match = task.matching.objective(dummy, distance)
            return match + task.penalty(variable, images, left), images

        restarts, left = len(moving[0]), self.searches[which].left
        losses, images = over_restarts(one, moving, free, others)
        self.task.matching.evaluations += (restarts - 1) * len(which)
        if self.plan.group is not None and restarts > 1:
            losses = losses + self.plan.group(images)
        return losses

    def _share(self, image: int) -> Gradients:
        """What one image, as it stands, contributes to the batch's gradient; `[R, …]` each."""
        restarts = len(self.task.variables[image])

        def one(items: Sequence[Tensor], rows: Sequence[Tensor], _: Gradients | None) -> Gradients:
            images = self.task.decode(torch.stack(list(items)))
            return self.task.matching.gradients(
                images, [image], rows, functional=restarts > 1, differentiable=False
            )[0]

        free = [*(rows.detach() for rows in self._free((image,))), *self._constants()]
        share: Gradients = over_restarts(one, [self.task.variables[image].detach()], free, None)
        self.task.matching.evaluations += restarts - 1
        return tuple(tensor.detach() for tensor in share)

    def _free(self, which: Sequence[int]) -> list[Tensor]:
        rows = self.task.matching.free if self.free is None else self.free
        return [rows[i] for i in which] if rows else []

    def _constants(self) -> Sequence[Tensor]:
        return self.task.matching.fixed if self.fixed is None else self.fixed

    def _search(self, which: tuple[int, ...]) -> Search:
        plan = self.plan
        free = self._free(which)
        moving = [self.task.variables[i] for i in which]
        free_lr = plan.lr if plan.optimizer == "lbfgs" else FREE_LR
        return Search(
            [*moving, *free],
            [plan.lr] * len(moving) + [free_lr] * len(free),
            plan.steps,
            SCHEDULES[plan.schedule],
            optimizer=plan.optimizer,
            memory=plan.memory,
            project=[partial(plan.project, i) for i in which] if plan.project else None,
        )


@dataclass
class OneByOne:
    """Restarts one after the other, for a search that cannot share its passes (L-BFGS).

    Args:
        whole: The stage with all restarts; its variables end where each restart ended.
    """

    whole: Movement

    def __post_init__(self) -> None:
        task, plan = self.whole.task, replace(self.whole.plan, project=None)
        self.parts = []
        for r in range(len(task.variables[0])):
            variables, free = (
                [v.detach()[r : r + 1].clone().requires_grad_() for v in group]
                for group in (task.variables, task.matching.free)
            )
            constants = [value[r : r + 1] for value in task.matching.fixed]
            self.parts.append(Movement(replace(task, variables=variables), plan, free, constants))

    def run(self, save: Callable[[], None] = lambda: None) -> None:
        """As `Movement.run`, for each restart."""
        whole = self.whole.task
        for r, part in enumerate(self.parts):
            part.run(save)
            with torch.no_grad():
                for to, value in zip(whole.variables, part.task.variables, strict=True):
                    to[r] = value[0]
                for to, value in zip(whole.matching.free, part.free or (), strict=True):
                    to[r] = value[0]

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs; by name."""
        return {
            f"{r}/{name}": value
            for r, part in enumerate(self.parts)
            for name, value in part.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for r, part in enumerate(self.parts):
            own = f"{r}/"
            part.load({n.removeprefix(own): v for n, v in state.items() if n.startswith(own)})


def over_restarts(
    one: Callable[..., tuple[Tensor, ...]],
    moving: Sequence[Tensor],
    free: Sequence[Tensor],
    held: Gradients | None,
) -> tuple[Tensor, ...]:
    """`one` for every restart, in one pass; the results are stacked in the first axis.

    A single restart is not mapped: plain autograd is cheaper.
    """
    if len(moving[0]) == 1:
        first = None if held is None else tuple(h[0] for h in held)
        results = one([v[0] for v in moving], [f[0] for f in free], first)
        return tuple(x[None] for x in results)
    stack: tuple[Tensor, ...] = torch.func.vmap(
        one, in_dims=(0, 0 if free else None, None if held is None else 0)
    )(list(moving), list(free), held)
    return stack
