"""Steps of a search along its gradient, whatever it searches for, and their schedules."""

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.search.movers.gradient_descent import (
    LEAST_STEP,
    Search,
    cosine_ramp,
    exponential_decay,
    step_decay,
)


def test_search_keeps_the_best_value_it_has_seen() -> None:
    x = torch.tensor([1.0], requires_grad=True)
    search = Search([x], 3.0, 20, lambda step, steps: 1.0)
    seen = []
    for _ in range(20):
        seen.append((float(x.detach()) - 0.3) ** 2)
        search.step((x - 0.3).square)
    search.restore()
    assert search.best == pytest.approx(min(seen))
    assert (float(x.detach()) - 0.3) ** 2 == pytest.approx(min(seen))
    assert search.done == 20


def test_signed_steps_have_one_length_and_stay_in_the_box() -> None:
    x = torch.tensor([[0.5, 0.5]], requires_grad=True)
    search = Search(
        [x],
        0.1,
        8,
        lambda step, steps: 1.0,
        optimizer="signed_adam",
        project=[lambda value: value.clamp(0, 1)],
    )
    search.step(lambda: (x * torch.tensor([1e-6, -1e6])).sum(1))
    torch.testing.assert_close(x.detach(), torch.tensor([[0.4, 0.6]]), rtol=1e-4, atol=0)
    for _ in range(7):
        search.step(lambda: (x * torch.tensor([1.0, -1.0])).sum(1))
    assert x.tolist() == [[0.0, 1.0]]


def test_restarts_do_not_touch_each_other() -> None:
    """Two in one search end where each ends alone, and each keeps its own best."""
    starts = torch.tensor([[3.0], [-2.0]])

    def losses(x: Tensor) -> Tensor:
        return (x - 0.3).square().sum(1)

    ends = []
    for rows in (starts, starts[:1], starts[1:]):
        x = rows.clone().requires_grad_()
        search = Search([x], 0.5, 12)
        for _ in range(12):
            search.step(lambda x=x: losses(x))  # type: ignore[misc]
        search.restore()
        assert torch.equal(search.best, losses(x.detach()))
        ends.append(x.detach())
    assert torch.equal(ends[0], torch.cat(ends[1:]))


def test_lbfgs_solves_a_valley_that_adam_does_not() -> None:
    """Rosenbrock's function, from its usual start."""

    def loss(x: Tensor) -> Tensor:
        return 100 * (x[:, 1] - x[:, 0].square()).square() + (1 - x[:, 0]).square()

    ends = {}
    for optimizer in ("lbfgs", "adam"):
        x = torch.tensor([[-1.2, 1.0]], requires_grad=True)
        search = Search([x], 1.0, 6, optimizer=optimizer)
        for _ in range(6):
            search.step(lambda x=x: loss(x))  # type: ignore[misc]
        search.restore()
        ends[optimizer] = float(loss(x.detach()))
    assert ends["lbfgs"] < 1e-8
    assert ends["adam"] > 1e-2


@pytest.mark.parametrize("moved", [False, True])
def test_a_step_of_lbfgs_does_not_look_again_where_the_one_before_ended(*, moved: bool) -> None:
    """Unless somebody moved the variables meanwhile."""
    looked: list[float] = []
    x = torch.tensor([[3.0]], requires_grad=True)
    search = Search([x], 0.1, 2, optimizer="lbfgs")

    def losses() -> Tensor:
        looked.append(float(x.detach()))
        return (x[:, 0] - 1).square().square()

    search.step(losses)
    end = looked[-1]
    assert float(x.detach()) == pytest.approx(end, abs=1e-6)
    if moved:
        with torch.no_grad():
            x += 1
    count = len(looked)
    first = search.step(losses)
    assert float(first) == pytest.approx((float(end) + moved - 1) ** 4, rel=1e-4)
    assert (looked[count] == pytest.approx(end + 1)) is moved


def test_schedules() -> None:
    ramp = [cosine_ramp(step, 100) for step in range(100)]
    assert ramp[0] == pytest.approx(0.2)
    assert max(ramp) == ramp[4]
    assert ramp[-1] < 0.001
    assert [step_decay(step, 8) for step in range(8)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]
    )
    falls = [exponential_decay(step, 100) for step in range(101)]
    assert falls[0] == pytest.approx(0.2)
    assert falls[-1] == pytest.approx(LEAST_STEP)
    assert falls[50] / falls[60] == pytest.approx(falls[80] / falls[90])
