"""What is explained: one scenario's clients, attacked with more or less of what they share.

Every number comes through the same door: an observation is cut down, attacked, and scored like a
cell of a study, beside its control: the very same cut of the update of an invented person, as in a
study. Noise in its place only tells of several attacks which one explains most.
"""

import hashlib
import math
import re
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedaudit.captures.simulate.invented_clients import without_target
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import (
    AttackError,
    ConfigError,
    DataError,
    KnowledgeError,
    RunFolderError,
)
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Attack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.derivatives import twice_differentiable
from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.score import score
from fedaudit.study.jobs import TrainJob, model_job
from fedaudit.study.run_folder import MEASUREMENTS, RunFolder
from fedaudit.study.sent_things import reads
from fedaudit.why.leaks import Cut, Leak
from fedaudit.why.map_only import MapOnly

T = TypeVar("T")
Role = Literal["audit", "invented"]
"""The attack, or its control on the update of invented people."""

FALLBACK = "map_only"
"""Attacks what is too little for all attacks of the scenario."""
REFUSALS = (AttackError, ConfigError, DataError)
"""What says that something cannot be tested: a note of the explanation, and no failure."""
KEPT = 16
"""Captures, states and controls that are held in memory."""


@dataclass(frozen=True)
class Measurement(Generic[T]):
    """Something to measure once; its value stands in the run folder, under its key.

    Attributes:
        scenario, seed: Of the explanation that it belongs to.
        name: What is measured, its kind first ("leak/r1/t0/…"): the same name, the same value.
        type: Of the value, as pydantic takes it.
        take: Measures it; picklable.
    """

    scenario: str
    seed: int
    name: str
    type: Any
    take: "Callable[[Subject], T]"
    kind: ClassVar[str] = MEASUREMENTS
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> str:
        """A safe file name."""
        whole = f"{self.scenario}/s{self.seed}/{self.name}"
        readable = re.sub(r"[^A-Za-z0-9]+", "-", whole)[:64]
        return f"{readable}--{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    @property
    def group(self) -> str:
        """Measurements of one kind take about equally long."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Subject:
    """A scenario, ready to be attacked one measurement at a time.

    Attributes:
        attacks: By label, those of the scenario that read what an honest server sees.
        skipped: The others, each with the reason.
        gallery, embed: First judge of identity; None where there is none.
        folder: Keeps what is measured.
        layered: Gallery of the judge whose layers show where it looks (dlib), if it is one of the
            study's.
    """

    study: Study
    scenario: Scenario
    simulation: Simulation
    attacks: dict[str, Attack]
    skipped: tuple[str, ...]
    gallery: Gallery | None
    embed: Embed | None
    folder: RunFolder
    targets: int
    seed: int
    layered: Gallery | None = None
    _memory: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def people(self) -> int:
        """People in the gallery."""
        return len(self.gallery.people) if self.gallery else 0

    def measurement(self, name: str, kind: Any, take: "Callable[[Subject], T]") -> Measurement[T]:
        """Of this scenario and seed; see `Measurement`."""
        return Measurement(self.scenario.name, self.seed, name, kind, take)

    def get(self, wanted: Measurement[T]) -> T:
        """What was measured before, else what is measured now, which is kept.

        Raises:
            AttackError: Nothing can be measured; the reason is kept, too.
        """
        adapter = _adapter(wanted.type)
        with suppress(RunFolderError, ValidationError, KeyError):  # missing, or damaged
            record = self.folder.measurement(wanted.key)
            if why := record.get("refused"):
                raise AttackError(why)
            return cast(T, adapter.validate_python(record["value"]))
        body: dict[str, object] = {"name": wanted.name}
        try:
            value = wanted.take(self)
        except REFUSALS as error:
            self.folder.save_measurement(wanted.key, body | {"refused": str(error)})
            raise AttackError(str(error)) from error
        body["value"] = adapter.dump_python(value, mode="json")
        self.folder.save_measurement(wanted.key, body)
        return value

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes, held in memory for the measurements that follow."""
        if key not in self._memory:
            if len(self._memory) >= KEPT:
                self._memory.clear()
            self._memory[key] = make()
        return cast(T, self._memory[key])

    def state(self, number: int) -> State:
        """What everybody holds before round `number`."""

        def make() -> State:
            fresh = self.simulation.fresh()
            job = training_job(self.study, self.scenario, number)
            if job is None:
                return fresh
            try:
                return State.from_flat(self.folder.model(job.key))
            except RunFolderError:
                return self.simulation.train(fresh, range(1, number))[0]

        return self.once(("state", number), make)

    def capture(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        """What the client of this target shares in round `number` (the scenario's if not given)."""
        number = number or self.scenario.round
        return self._simulate(simulation or self.simulation, self.state(number), target, number)

    def invented(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        """The same of a client who holds photos of invented people: what the control attacks."""
        number = number or self.scenario.round
        real = simulation or self.simulation
        payloads = self.captured(target, number).seen.shared
        other, state, _ = without_target(real, self.state(number), target, payloads)
        return self._simulate(other, state, target, number)

    def _simulate(self, simulation: Simulation, state: State, target: int, number: int) -> Capture:
        scenario = self.scenario
        return simulate(
            simulation,
            state,
            target=target,
            batch_size=scenario.batch_size,
            training=scenario.audited_training,
            threat=threat_model(scenario.threat_model, scenario.grant, scenario.deny),
            round=number,
            seed=self.seed,
            only=scenario.expose,
            rounds_seen=scenario.rounds_seen,
        )

    def captured(self, target: int, number: int | None = None) -> Capture:
        """The same, from memory where it is there."""
        number = number or self.scenario.round
        return self.once(("capture", target, number), lambda: self.capture(target, number))

    def best_attack(self, seen: Observation, *key: object) -> tuple[str, Reconstruction] | None:
        """Attack; of several attacks keep the best by its own objective, never by the truth.

        Objectives of two attacks have no common scale. Each is divided by what the same attack
        reaches on noise in place of what was shared: how much of it is explained beyond chance.

        Returns:
            The attack's label and its reconstruction; None where no attack reads what is seen.
        """
        ranking: list[tuple[float, str, Reconstruction]] = []
        able = [n for n, a in self.attacks.items() if any(reads(a.reads, s) for s in seen.shared)]
        for name in able:
            result = self.attempt(name, seen, *key)
            if result is not None:
                beyond = self._beyond(name, result, seen, *key) if len(able) > 1 else 0.0
                ranking.append((beyond, name, result))
        if not ranking and any(reads(MapOnly.reads, s) for s in seen.shared):
            result = self.attempt(FALLBACK, seen, *key)
            ranking += [(0.0, FALLBACK, result)] if result is not None else []
        return min(ranking, key=lambda row: row[0])[1:] if ranking else None

    def attempt(self, name: str, seen: Observation, *key: object) -> Reconstruction | None:
        """A reconstruction; None where the attack can make nothing of so small a part."""
        attack = MapOnly() if name == FALLBACK else self.attacks[name]
        generator = generator_for("why attack", self.scenario.name, name, self.seed, *key)
        try:
            with twice_differentiable():
                return attack(seen, generator=generator)
        except (AttackError, KnowledgeError):
            return None

    def _beyond(self, name: str, result: Reconstruction, seen: Observation, *key: object) -> float:
        """The objective, in units of what the attack reaches on noise; infinity for none."""
        empty = without_update(seen, generator_for("why prior", self.seed, *key))
        base = self.attempt(name, empty, *key)
        if base is None or not base.objective > 0 or math.isnan(result.objective):
            return math.inf
        return result.objective / base.objective

    def leak(
        self, cut: Cut, target: int, *, number: int | None = None, role: Role = "audit"
    ) -> Measurement[Leak | None]:
        """Attack a target's capture cut down to `cut`, and score; None: no attack reads it.

        The control runs the attack that was best on the real thing.
        """
        number = number or self.scenario.round
        name = f"leak/r{number}/t{target}/{cut.key}/{role}"
        take = partial(_leak, cut=cut, target=target, number=number, role=role)
        return self.measurement(name, Leak | None, take)

    def judged(self, secret: Secret, attack: str, result: Reconstruction) -> Leak:
        """Score a reconstruction as a study does."""
        images, _, _ = score(secret, result, gallery=self.gallery, embed=self.embed)
        finite = math.isfinite(result.objective)
        return Leak(images, attack, result.objective if finite else None)

    def reconstructions(self, target: int) -> tuple[Tensor, Tensor] | None:
        """Images `[N, C, H, W]` from all that is shared, and the control's, as the originals go."""
        capture, key = self.captured(target), (self.scenario.round, target)
        assert capture.secret is not None  # simulated captures always know it
        best = self.best_attack(capture.seen, *key)
        base = best and self.attempt(best[0], self.invented(target).seen, *key)
        if not best or not base:
            return None
        real, control = (
            score(capture.secret, r, gallery=None, embed=None)[2] for r in (best[1], base)
        )
        return real, control


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _leak(subject: Subject, cut: Cut, target: int, number: int, role: Role) -> Leak | None:
    capture = subject.captured(target, number)
    assert capture.secret is not None  # simulated captures always know it
    key = (number, target)
    if role == "audit":
        best = subject.best_attack(cut.of(capture.seen, capture.secret), *key)
        return subject.judged(capture.secret, *best) if best else None
    real = subject.get(subject.leak(cut, target, number=number))
    if real is None:
        return None
    other = subject.once(("invented", target, number), lambda: subject.invented(target, number))
    result = subject.attempt(real.attack, cut.of(other.seen, capture.secret), *key)
    return subject.judged(capture.secret, real.attack, result) if result else None


def training_job(study: Study, scenario: Scenario, number: int) -> TrainJob | None:
    """The study's job that trains what everybody holds before round `number`; None: untrained."""
    return model_job(study, replace(scenario, round=number), scenario.defenses[0])
