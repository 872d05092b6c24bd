"""Moving one image at a time: a sweep costs as many passes as there are images."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.mover import Plan, Task
from fedaudit.attacks.search.movers.round_wise import Movement
from fedaudit.attacks.search.trace import Trace
from fedaudit.core.capture import Capture

sys.path.insert(0, str(Path(__file__).parent))
from matching_engine import engine

Intercept = Callable[..., Capture]


def leaves(count: int, seed: int = 0) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 32, 32, generator=noise).requires_grad_() for _ in range(count)]


def no_prior(variable: Tensor, images: Tensor, left: float) -> Tensor:
    del variable, left
    return images.new_zeros(())


class FullTrace(Trace):
    """Remembers every value."""

    def __init__(self) -> None:
        super().__init__(10_000)
        self.values: list[float] = []

    def add(self, value: float) -> None:
        super().add(value)
        self.values.append(value)


def move(matching: Matching, variables: Sequence[Tensor], plan: Plan) -> list[float]:
    trace = FullTrace()
    Movement(Task(matching, variables, lambda v: v, no_prior, trace), plan).run()
    return trace.values


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_sweep_costs_one_single_image_pass_an_image_and_step(
    count: int, rounds: int, intercept: Intercept
) -> None:
    matching = engine(intercept(batch=count).seen)
    reported = move(matching, leaves(count), Plan(steps=7, lr=0.01, rounds=rounds))
    round_wise = rounds > 0 and count > 1
    # One pass an image fills the held sums, and one a turn brings them up to date.
    assert matching.evaluations == count * 7 + (count + rounds * count if round_wise else 0)
    assert len(reported) == (count * 7 if round_wise else 7)


def test_a_round_moves_one_image_and_holds_the_others(
    intercept: Intercept, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = intercept(batch=2)
    matching = engine(captured.seen)
    moved: list[int] = []
    variables = leaves(2)
    before = [v.detach().clone() for v in variables]
    original = Matching.gradients

    def watch(
        self: Matching, images: Tensor, which: Sequence[int], *rest: Any, **kind: Any
    ) -> tuple[Gradients, Tensor]:
        moved.append(which[0])
        assert len(which) == 1
        if moved[2:] and moved[-1] == 0:
            assert torch.equal(variables[1].detach(), before[1])
        return original(self, images, which, *rest, **kind)

    monkeypatch.setattr(Matching, "gradients", watch)
    move(matching, variables, Plan(steps=3, lr=0.05, rounds=1))
    assert moved == [0, 1] + [0] * 4 + [1] * 4


@pytest.mark.parametrize("defense", ["none", "dplc", "private_projector"])
@pytest.mark.parametrize("rounds", [0, 4])
def test_the_objective_falls(defense: str, rounds: int, intercept: Intercept) -> None:
    matching = engine(intercept(batch=2, defense=defense).seen)
    plan = Plan(
        steps=24,
        lr=0.05,
        rounds=rounds,
        optimizer="signed_adam",
        project=lambda _, value: value.clamp(0, 1),
    )
    variables = leaves(2)
    reported = move(matching, variables, plan)
    assert reported[-1] < 0.9 * reported[0]
    assert all(float(v.detach().min()) >= 0 and float(v.detach().max()) <= 1 for v in variables)


def test_no_steps_move_nothing(intercept: Intercept) -> None:
    matching = engine(intercept().seen)
    (variable,) = leaves(1)
    before = variable.detach().clone()
    move(matching, [variable], Plan(steps=0, lr=1.0))
    assert torch.equal(variable.detach(), before)
