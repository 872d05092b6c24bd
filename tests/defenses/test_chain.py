"""Defenses in order: what each does, and what is public and promised of all together."""

from collections.abc import Callable

import pytest

from fedaudit.core.capture import Capture
from fedaudit.core.errors import FedauditError
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.chain import parts_of
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
