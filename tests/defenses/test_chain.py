"""Defenses in order: what each does, and what is public and promised of all together."""

from collections.abc import Callable

import pytest

from fedaudit.core.capture import Capture
from fedaudit.core.claims import Budget
from fedaudit.core.client import ClientReturn
from fedaudit.core.errors import FedauditError
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.composition import with_budget
from fedaudit.defenses.gradient_transforms import norms
from fedaudit.federation.simulation import Simulation

CLIP = {"name": "clipping", "max_norm": 0.01}


def sent_norm(intercept: Callable[..., Capture], *of: object) -> float:
    update = intercept(defense="chain", settings={"of": of}).seen.update
    assert isinstance(update, Update)
    return float(norms({name: value[None] for name, value in update.tensors.items()}))


def test_what_is_sent_passes_the_first_one_first(intercept: Callable[..., Capture]) -> None:
    noise = {"name": "gaussian_noise", "std": 1.0}
    assert sent_norm(intercept, noise, CLIP) == pytest.approx(0.01, rel=1e-3)
    assert sent_norm(intercept, CLIP, noise) > 100


def test_an_attacker_is_told_of_every_part(
    federate: Callable[..., Simulation], intercept: Callable[..., Capture]
) -> None:
    settings = {"of": [CLIP, {"name": "chain", "of": ["private_projector"]}]}
    chain = create("defenses", "chain", settings)
    assert [part.facts().name for part in parts_of(chain)] == ["clipping", "private_projector"]
    told = intercept(defense="chain", settings=settings).seen.defense
    assert told == tuple(part.facts() for part in parts_of(chain))
    simulation = federate(defense="chain", settings=settings)
    assert not any(name.startswith("embedding.") for name in simulation.fresh().server)


@pytest.mark.parametrize("of", [[], [{"max_norm": 1.0}], ["clippin"]])
def test_a_part_that_is_none_is_refused(of: list[object]) -> None:
    with pytest.raises(FedauditError, match=r"chain: |clippin"):
        create("defenses", "chain", {"of": of})


def test_budgets_of_one_unit_add_up_and_others_stand_side_by_side() -> None:
    def budget(epsilon: float, unit: str) -> Budget:
        return Budget(epsilon, 1e-5, unit, "noise", "someone")

    start = with_budget(ClientReturn(()), None)
    assert start.budget is None
    once = with_budget(start, budget(1.0, "image"))
    twice = with_budget(once, budget(2.0, "image"))
    assert twice.budget is not None
    assert (twice.budget.epsilon, twice.budget.delta) == (3.0, 2e-5)
    other = with_budget(once, budget(2.0, "client"))
    assert other.budget is not None
    assert (other.budget.epsilon, other.budget.unit) == (1.0, "image")
    assert "ε = 2" in other.budget.mechanism
