"""Shared things and rounds, explained on a planted leak, and how it is measured."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import LPIPS
from fedaudit.why import artifacts, layers, rounds
from fedaudit.why.leaks import Cut
from fedaudit.why.prepare_subject import scenario_of

sys.path.insert(0, str(Path(__file__).parent))
from planted_leak import Planted, Rigged, is_real, rigged

Federate = Callable[..., Simulation]


@pytest.fixture
def subject(federate: Federate, tmp_path: Path) -> Callable[..., Rigged]:
    """Ready to be explained, with a planted attack."""
    return partial(rigged, federate, tmp_path)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of the scorer's time, and nothing here looks at it."""
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))


def test_two_that_leak_together_share_it_and_the_others_get_nothing(
    subject: Callable[..., Rigged],
) -> None:
    game = artifacts.explain(subject())
    value = {p.name: p.ssim.value for p in game.players}
    gain = game.everybody.value - game.nobody.value
    assert game.everybody.value == pytest.approx(1.0)
    assert sum(value.values()) == pytest.approx(gain)
    assert value["embedding"] == pytest.approx(gain / 2)
    assert value["head"] == pytest.approx(gain / 2)
    for dummy in ("body, first half", "body, second half", artifacts.LABELS):
        assert value[dummy] == pytest.approx(0, abs=1e-6)
    assert game.coalitions == 32


def test_labels_are_a_player(subject: Callable[..., Rigged]) -> None:
    ready = subject()
    ready.attacks["planted"] = Planted(
        ready.simulation.faces.images, ("embedding.weight",), only_labeled=True
    )
    value = {p.name: p.ssim.value for p in artifacts.explain(ready).players}
    assert value[artifacts.LABELS] == pytest.approx(value["embedding"])
    assert value[artifacts.LABELS] > 0.3
    assert value["head"] == pytest.approx(0, abs=1e-6)


def test_too_many_players_are_refused(intercept: Callable[..., Capture]) -> None:
    seen = intercept(network="small_cnn").seen
    assert seen.update is not None
    many = {f"part{k}.weight": torch.ones(2, 2) for k in range(10)}
    with pytest.raises(ConfigError, match="11 shared things"):
        artifacts.players_of(replace(seen, shared=(Update("delta", many),)))


@pytest.mark.slow
def test_rounds_train_on_from_what_there_is(subject: Callable[..., Rigged]) -> None:
    ready = subject()
    rows = rounds.explain(ready, (1, 2, 3))
    assert [r.round for r in rows] == [1, 2, 3]
    assert all(r.accuracy is not None and 0.5 <= r.accuracy <= 1 for r in rows)
    assert all(r.leakage.ssim.value == pytest.approx(1.0) for r in rows)
    straight, _ = ready.simulation.train(ready.simulation.fresh(), range(1, 3))
    kept = ready.state(3)
    for name, value in straight.server.items():
        assert torch.equal(kept.server[name], value)


def test_what_is_measured_is_not_measured_again(subject: Callable[..., Rigged]) -> None:
    ready = subject()
    attack = ready.attacks["planted"]
    first = layers.explain(ready)
    assert isinstance(attack, Planted)
    calls = attack.calls
    assert calls == 2 * 2 * 13  # targets, roles, cuts
    assert layers.explain(ready) == first
    assert attack.calls == calls
    (some,) = sorted((ready.folder.path / "measurements").glob("*.json"))[:1]
    some.write_bytes(b'{"key": "half a')
    assert layers.explain(ready) == first
    assert attack.calls == calls + 1


def test_an_exposure_is_the_same_in_another_order() -> None:
    assert Cut(("a", "b")).key == Cut(("b", "a")).key
    assert Cut(("a", "b")).key != Cut(("a", "b"), labels=True).key


def test_the_best_attack_is_chosen_by_its_own_objective(subject: Callable[..., Rigged]) -> None:
    """Not by its picture, nor by an objective that is small on noise, too."""

    ready = subject()
    ready.attacks.clear()
    ready.attacks["lazy"] = Says(found=0.01, noise=0.01)
    ready.attacks["good"] = Says(found=5.0, noise=50.0)
    best = ready.best_attack(ready.capture(0).seen, 1, 0)
    assert best is not None
    assert best[0] == "good"


@dataclass(frozen=True)
class Says:
    """An attack that reaches one objective on updates and another on noise."""

    found: float
    noise: float
    needs = frozenset[Any]()
    reads = frozenset({Update})

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Any = None
    ) -> Reconstruction:
        assert seen.update is not None
        real = is_real(seen.update.tensors["head.weight"])
        images, nobody = torch.zeros(1, 3, 32, 32), torch.tensor([-1])
        return Reconstruction(images, nobody, objective=self.found if real else self.noise)


def test_an_unknown_scenario_names_the_closest() -> None:
    study = Study("s", (Scenario("fresh"), Scenario("trained")))
    assert scenario_of(study, None).name == "fresh"
    with pytest.raises(UnknownNameError, match="did you mean 'trained'"):
        scenario_of(study, "trainde")
