"""Layers, shared things and clients, explained on a leak that was planted in known layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError, ConfigError, UnknownNameError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import LPIPS, SSIM
from fedaudit.study.run_folder import RunFolder
from fedaudit.why import artifacts, clients, layers, rounds
from fedaudit.why.explained_scenario import Subject
from fedaudit.why.leaks import Cut
from fedaudit.why.map_only import MapOnly
from fedaudit.why.prepare_subject import scenario_of

Federate = Callable[..., Simulation]
NEEDED = ("embedding.weight", "head.weight")


@dataclass
class Planted:
    """Knows the truth, and tells it only where the update has all `needed` parameters.

    What an attack may never do; here it makes the leak of each layer known beforehand.
    """

    faces: Tensor
    needed: tuple[str, ...] = NEEDED
    only_labeled: bool = False
    calls: int = 0
    needs = frozenset[Any]()
    reads = frozenset({Update})

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Any = None
    ) -> Reconstruction:
        self.calls += 1
        update = seen.update
        assert update is not None
        count = seen.batch_size or 1
        there = all(n in update.tensors and is_real(update.tensors[n]) for n in self.needed)
        if self.only_labeled:
            there = there and seen.labels is not None
        images = torch.full((count, *self.faces.shape[1:]), 0.5)
        if there:
            images = torch.stack([self.faces[int(i)] for i in who(seen, count)])
        return Reconstruction(images, torch.full((count,), -1), objective=0.0 if there else 1.0)


def is_real(tensor: Tensor) -> bool:
    """Whether a shared tensor is no noise: the tests mark real ones with a first number of 7."""
    return bool((tensor.flatten()[0] % 7).abs() < 1e-4)


def who(seen: Observation, count: int) -> Sequence[int]:
    """Numbers of the photos, which the tests hide in the update: one more than each, a slot each.

    A mean over clients divides every slot by their number.
    """
    update = seen.update
    assert update is not None
    slots = update.tensors["embedding.weight"].flatten()[1:5] * count
    return [round(slot) - 1 for slot in slots.tolist() if slot > 0.5]


@dataclass(frozen=True)
class Rigged(Subject):
    """A subject whose captures hide the photos' numbers in the update."""

    def capture(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        captured = super().capture(target, number, simulation=simulation)
        assert captured.secret is not None
        assert captured.seen.update is not None
        tensors = {n: t.clone() for n, t in captured.seen.update.tensors.items()}
        for tensor in tensors.values():
            tensor.view(-1)[0] = 7.0
        index = self.simulation.faces.sources.index(captured.secret.sources[0])
        slots = tensors["embedding.weight"].view(-1)[1:5]
        slots.zero_()
        slots[target % len(self.simulation.split.clients)] = float(index + 1)
        shared = (Update("delta", tensors, captured.seen.batch_size),)
        return replace(captured, seen=replace(captured.seen, shared=shared))

    def invented(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        captured = super().invented(target, number, simulation=simulation)
        assert captured.seen.update is not None
        for tensor in captured.seen.update.tensors.values():
            tensor.view(-1)[0] = 3.0
        return captured


@pytest.fixture
def subject(federate: Federate, tmp_path: Path) -> Callable[..., Rigged]:
    """Ready to be explained, with a planted attack."""

    def make(attack: Any = None, *, name: str = "alone", targets: int = 2) -> Rigged:
        simulation = federate(network="face", method="fedavg", arguments={"dim": 16})
        scenario = Scenario(name, batch_size=1)
        return Rigged(
            study=Study("planted", (scenario,), size=32),
            scenario=scenario,
            simulation=simulation,
            attacks={"planted": attack or Planted(simulation.faces.images)},
            skipped=(),
            gallery=None,
            embed=None,
            folder=RunFolder(tmp_path),
            targets=targets,
            seed=0,
        )

    return make


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of the scorer's time, and nothing here looks at it."""
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))


# --- layers ---------------------------------------------------------------------------------------


def test_layers_sum_to_the_update(intercept: Callable[..., Capture]) -> None:
    """Every number is in one layer, and a layer with all the others is everything."""
    seen = intercept(network="face", method="fedavg").seen
    assert seen.update is not None
    tensors = seen.update.tensors
    found = layers.layers_of(tensors)
    assert list(found) == ["body.1", "body.4", "body.5", "body.6", "embedding", "head"]
    owners = {n: [layer for layer, ps in found.items() if n.startswith(ps)] for n in tensors}
    assert all(len(mine) == 1 for mine in owners.values())
    whole, parts = layers.cuts_of(seen)
    for alone, without in parts.values():
        assert without is not None
        one, rest = (expose(seen, e.only or ()).update for e in (alone, without))
        assert one is not None
        assert rest is not None
        assert not one.tensors.keys() & rest.tensors.keys()
        assert one.tensors.keys() | rest.tensors.keys() == tensors.keys()
    everything = expose(seen, whole.only or ()).update
    assert everything is not None
    assert everything.tensors.keys() == tensors.keys()


def test_layers_are_told_apart(subject: Callable[..., Rigged]) -> None:
    found = layers.explain(subject())
    assert found.all.ssim.value == pytest.approx(1.0)
    assert found.all.prior.value < 0.3
    assert found.all.excess.low > 0
    by_name = {layer.name: layer for layer in found.layers}
    for name, layer in by_name.items():
        assert layer.alone is not None
        assert layer.without is not None
        assert layer.lost is not None
        assert layer.alone.ssim.value < 0.3  # it takes two
        needed = f"{name}.weight" in NEEDED
        assert (layer.without.ssim.value < 0.3) == needed
        assert (layer.lost.value > 0.7) == needed


def test_a_cut_that_no_attack_reads_is_not_tested(
    subject: Callable[..., Rigged], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Reconstruction:
        raise AttackError("no map")

    monkeypatch.setattr(MapOnly, "__call__", refuse)

    class Refuses(Planted):
        def __call__(
            self, seen: Observation, *, generator: torch.Generator, progress: Any = None
        ) -> Reconstruction:
            if seen.update is not None and "body.1.weight" not in seen.update.tensors:
                raise AttackError("nothing to match")
            return super().__call__(seen, generator=generator)

    ready = subject()
    ready.attacks["planted"] = Refuses(ready.simulation.faces.images)
    by_name = {layer.name: layer for layer in layers.explain(ready).layers}
    assert by_name["head"].alone is None  # not a leakage of zero
    assert by_name["body.1"].alone is not None
    assert by_name["body.1"].without is None


def test_the_embedding_alone_is_attacked(intercept: Callable[..., Capture]) -> None:
    """Nothing of the body is shared, which engines that match gradients cannot use."""
    captured = intercept(network="face", method="fedavg")
    assert captured.secret is not None
    seen = expose(captured.seen, ["update:embedding."])
    made, noise = (
        MapOnly(steps=60)(cut, generator=generator_for(0))
        for cut in (seen, without_update(seen, generator_for(1)))
    )
    ours, by_chance = (float(SSIM()(captured.secret.images, r.images)) for r in (made, noise))
    assert ours > by_chance + 0.15
    assert made.objective < noise.objective
    with pytest.raises(AttackError, match="not shared"):
        MapOnly()(expose(captured.seen, ["update:head."]), generator=generator_for(0))


# --- shared things --------------------------------------------------------------------------------


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


# --- clients --------------------------------------------------------------------------------------


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


# --- controls -------------------------------------------------------------------------------------


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


# --- rounds, measurements -------------------------------------------------------------------------


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
