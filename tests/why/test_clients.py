"""Clients and the controls of their sums, explained on a planted leak."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import LPIPS
from fedaudit.why import clients
from fedaudit.why.explained_scenario import Subject
from fedaudit.why.leaks import Cut

sys.path.insert(0, str(Path(__file__).parent))
from planted_leak import Rigged, rigged

Federate = Callable[..., Simulation]


@pytest.fixture
def subject(federate: Federate, tmp_path: Path) -> Callable[..., Rigged]:
    """Ready to be explained, with a planted attack."""
    return partial(rigged, federate, tmp_path)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of the scorer's time, and nothing here looks at it."""
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))


def test_a_sum_is_the_update_of_everybody(federate: Federate, subject: Callable[..., Any]) -> None:
    ready = subject()
    seen = [Subject.capture(ready, target).seen for target in (0, 1)]
    together = clients.sum_up(seen)
    mean = together.update
    assert mean is not None
    assert together.batch_size == 2
    for name, value in mean.tensors.items():
        parts = [o.update.tensors[name] for o in seen if o.update is not None]
        assert torch.allclose(value, (parts[0] + parts[1]) / 2, atol=1e-7)


def test_a_client_that_leaks_in_every_sum_gets_its_own(subject: Callable[..., Rigged]) -> None:
    """Sums that hide nobody: each client's value is what it gives away alone, and adds up."""
    game = clients.explain(subject(name="sums"), pairs=2)
    assert [p.name for p in game.players] == ["client 0", "client 1"]
    total = sum(p.ssim.value for p in game.players)
    assert total == pytest.approx(game.everybody.value)
    for p in game.players:
        assert p.together is not None
        assert p.hidden is not None
        assert p.ssim.value > 0.5
        assert abs(p.hidden.value) < 0.2  # the control of one is not that of two
    assert game.coalitions == 6


def test_two_clients_are_the_least(subject: Callable[..., Rigged]) -> None:
    ready = subject()
    lonely = replace(
        ready.simulation,
        split=replace(ready.simulation.split, clients=ready.simulation.split.clients[:1]),
    )
    with pytest.raises(ConfigError, match="one client"):
        clients.explain(replace(ready, simulation=lonely), pairs=2)


def test_the_control_is_the_update_of_an_invented_person(subject: Callable[..., Any]) -> None:
    """Same weights, label and grayness; another face, so that its update is no noise either."""
    ready = subject()
    real, control = Subject.capture(ready, 1), Subject.invented(ready, 1)
    assert real.secret is not None
    assert control.secret is not None
    assert torch.equal(real.secret.labels, control.secret.labels)
    assert (control.secret.images == control.secret.images[:, :1]).all()
    assert not torch.equal(real.secret.images, control.secret.images)
    assert real.seen.before.keys() == control.seen.before.keys()
    assert all(torch.equal(v, control.seen.before[n]) for n, v in real.seen.before.items())
    leak = ready.get(ready.leak(Cut(None), 1, role="invented"))
    assert leak is not None
    assert leak.ssim < ready.get(ready.leak(Cut(None), 1)).ssim


def test_the_control_of_a_sum_is_a_sum_of_invented_people(subject: Callable[..., Rigged]) -> None:
    ready = subject()
    shown = []

    def remember(seen: Observation, *, generator: torch.Generator) -> Reconstruction:
        shown.append(seen)
        return Reconstruction(torch.zeros(2, 3, 32, 32), torch.tensor([-1, -1]))

    ready.attacks["planted"] = remember  # type: ignore[assignment]
    clients._control(ready, "planted", 0)
    (seen,) = shown
    parts = [ready.invented(target).seen.update for target in (0, 1)]
    assert seen.batch_size == 2
    assert seen.update is not None
    for name, value in seen.update.tensors.items():
        mean = torch.stack([part.tensors[name] for part in parts if part]).mean(0)
        assert torch.allclose(value, mean, atol=1e-6)
