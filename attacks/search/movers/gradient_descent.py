"""First- and second-order search over whatever variables an attack chose, restarts side by side."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

LEAST_STEP = 0.005
"""What an exponential decay leaves of the learning rate; chosen with `schedules.waves.WAVE_LR`."""


def cosine_ramp(step: int, steps: int) -> float:
    """Factor on the learning rate: up over the first 5 %, then down as a half cosine."""
    return (
        min(1.0, (step + 1) / max(1.0, 0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def step_decay(step: int, steps: int) -> float:
    """×0.1 after 3/8, 5/8 and 7/8 of the steps (Geiping et al. 2020)."""
    return float(0.1 ** sum(step >= q * steps for q in (3 / 8, 5 / 8, 7 / 8)))


def gifd_ramp(step: int, steps: int) -> float:
    """Up over 5 %, then 1, then down as a cosine over the last 75 % (Fang et al. 2023)."""
    rise = min(1.0, (step + 1) / max(1.0, 0.05 * steps))
    fall = min(1.0, max(0.0, (steps - step) / (0.75 * steps)))
    return rise * 0.5 * (1 - math.cos(math.pi * fall))


def exponential_decay(step: int, steps: int) -> float:
    """Up over the first 5 %, and down to `LEAST_STEP` by the same factor a step."""
    return min(1.0, (step + 1) / max(1.0, 0.05 * steps)) * float(LEAST_STEP ** (step / steps))


def constant(step: int, steps: int) -> float:
    """1 throughout."""
    del step, steps
    return 1.0


SCHEDULES: Mapping[str, Callable[[int, int], float]] = {
    "cosine": cosine_ramp,
    "step": step_decay,
    "gifd": gifd_ramp,
    "exponential": exponential_decay,
    "constant": constant,
}
Schedule = Literal["cosine", "step", "gifd", "exponential", "constant"]

Closure = Callable[[], Tensor]
"""Computes the losses `[R]` of the variables as they are."""


@dataclass
class Search:
    """Moves leaf tensors; keeps, for each restart, the best value that its own loss has seen.

    Args:
        variables: Leaf tensors `[R, …]`, changed in place; R restarts, independent of each other.
        lr: Peak learning rate, one for all variables or one each.
        steps: Number of steps that the schedule spans.
        schedule: (step, steps) → factor on `lr`.
        optimizer: "signed_adam" steps along Adam's direction for the *sign* of the derivative, as
            Geiping et al. do. "lbfgs" (one restart only) makes up to 10 iterations a step.
        project: Applied to the first variables after each step, one function a variable.
        memory: Share of its mean square of slopes that Adam keeps in a step.
    """

    variables: Sequence[Tensor]
    lr: float | Sequence[float]
    steps: int
    schedule: Callable[[int, int], float] = cosine_ramp
    optimizer: str = "adam"
    project: Sequence[Callable[[Tensor], Tensor]] | None = None
    memory: float = 0.999

    def __post_init__(self) -> None:
        rates = [self.lr] * len(self.variables) if isinstance(self.lr, float) else list(self.lr)
        self._rates = rates
        self._torch: torch.optim.Optimizer
        if self.optimizer == "lbfgs":
            self._torch = torch.optim.LBFGS(
                list(self.variables),
                lr=rates[0],
                max_iter=10,
                history_size=50,
                tolerance_grad=1e-12,
                tolerance_change=1e-14,
                line_search_fn="strong_wolfe",
            )
        else:
            self._torch = torch.optim.Adam(
                [
                    {"params": [v], "lr": rate}
                    for v, rate in zip(self.variables, rates, strict=True)
                ],
                betas=(0.9, self.memory),
            )
        self.done = 0
        restarts = len(self.variables[0])
        self.best = torch.full((restarts,), float("inf"), device=self.variables[0].device)
        self._kept = [v.detach().clone() for v in self.variables]
        self._marked = (0, float("inf"))
        self._seen: tuple[list[Tensor], Tensor, list[Tensor]] | None = None

    @property
    def left(self) -> float:
        """Share of the steps that is still to be made, in (0, 1]."""
        return max(1 - self.done / self.steps, 1 / self.steps) if self.steps else 1.0

    def stalled(self, patience: int, least: float) -> bool:
        """Whether `patience` steps brought no restart a relative improvement of `least`."""
        best, (since, mark) = float(self.best.min()), self._marked
        if best < mark * (1 - least):
            self._marked = (self.done, best)
            return False
        return bool(patience) and self.done - since >= patience

    def step(self, losses: Closure, total: Callable[[Tensor], Tensor] = torch.sum) -> Tensor:
        """One step down the losses `[R]`, of which `total` is differentiated; returns them before
        it.
        """
        if self.optimizer == "lbfgs":
            return self._second_order(losses)
        factor = self.schedule(self.done, self.steps)
        for group, rate in zip(self._torch.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        values = self._differentiate(losses, total)
        if self.optimizer == "signed_adam":
            for variable in self.variables:
                assert variable.grad is not None
                variable.grad.sign_()
        self._torch.step()
        self._into_bounds()
        self.done += 1
        return values

    def restore(self) -> None:
        """Set the variables to the best values seen, restart by restart."""
        with torch.no_grad():
            for variable, best in zip(self.variables, self._kept, strict=True):
                variable.copy_(best)

    def state(self) -> dict[str, Tensor]:
        """All that a later `load` needs to go on exactly as if there had been no break."""
        state = {
            "done": torch.tensor(self.done),
            "best": self.best,
            "marked": torch.tensor(self._marked, dtype=torch.float64),
        }
        for i, (variable, best) in enumerate(zip(self.variables, self._kept, strict=True)):
            state |= {f"{i}.value": variable.detach(), f"{i}.kept": best}
            # L-BFGS keeps all of its state with the first variable.
            for key, value in self._torch.state.get(variable, {}).items():
                state |= _flat(f"{i}.optimizer.{key}", value)
        return {name: value.clone() for name, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.done, self.best = int(state["done"]), state["best"].to(self.best)
        self._marked = (int(state["marked"][0]), float(state["marked"][1]))
        with torch.no_grad():
            for i, variable in enumerate(self.variables):
                variable.copy_(state[f"{i}.value"])
                self._kept[i] = state[f"{i}.kept"].to(variable)
                prefix = f"{i}.optimizer."
                inner = {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
                if inner:
                    self._torch.state[variable] = _nest(inner)

    def look(self, losses: Tensor) -> Tensor:
        """Keep the variables of the restarts whose losses `[R]` are the least so far."""
        values = losses.detach()
        better = values < self.best
        if bool(better.any()):
            self.best = torch.where(better, values, self.best)
            for i, variable in enumerate(self.variables):
                where = better.view(-1, *[1] * (variable.dim() - 1))
                self._kept[i] = torch.where(where, variable.detach(), self._kept[i])
        return values

    def _differentiate(
        self, losses: Closure, total: Callable[[Tensor], Tensor] = torch.sum
    ) -> Tensor:
        """Losses `[R]` of the variables as they are; leaves the derivatives in `.grad`."""
        each = losses()
        values = self.look(each)
        grads = torch.autograd.grad(total(each), list(self.variables))
        for variable, grad in zip(self.variables, grads, strict=True):
            # A restart that left the finite numbers stays where it was.
            variable.grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
        return values

    def _second_order(self, losses: Closure) -> Tensor:
        before: list[Tensor] = []

        def closure() -> float:
            # A step begins where the one before ended, which was looked at then.
            if self._seen and all(map(torch.equal, self._seen[0], self.variables)):
                values = self._seen[1]
                for variable, slope in zip(self.variables, self._seen[2], strict=True):
                    variable.grad = slope.clone()
            else:
                values = self._differentiate(losses)
                at = [v.detach().clone() for v in self.variables]
                slopes = [v.grad.clone() for v in self.variables if v.grad is not None]
                self._seen = at, values, slopes
            before.append(values)
            return float(torch.nan_to_num(values, nan=1e12).sum())

        self._torch.step(closure)
        self._into_bounds()
        self.done += 1
        return before[0]

    def _into_bounds(self) -> None:
        if self.project is not None:
            with torch.no_grad():
                for variable, project in zip(self.variables, self.project, strict=False):
                    variable.copy_(project(variable))


def _flat(name: str, value: Any) -> dict[str, Tensor]:
    """A value of an optimizer's state as tensors: numbers and lists are told by their names."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, list):
        items = [v for v in value if v is not None]  # None: room that L-BFGS has not used yet
        return {f"{name}/list": torch.tensor(len(value))} | {
            f"{name}/{i}": v for i, v in enumerate(items)
        }
    return {} if value is None else {f"{name}/number": torch.tensor(value, dtype=torch.float64)}


def _nest(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `_flat`, for all values of a state together."""
    state: dict[str, Any] = {}
    for name, value in flat.items():
        key, _, kind = name.partition("/")
        if not kind:
            state[key] = value
        elif kind == "number":
            state[key] = int(value) if float(value).is_integer() and key != "t" else float(value)
        elif kind == "list":
            items = [flat[f"{key}/{i}"] for i in range(int(value)) if f"{key}/{i}" in flat]
            state[key] = items + [None] * (int(value) - len(items))
    return state
