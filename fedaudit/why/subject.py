"""What is explained: one scenario's clients, attacked with more or less of what they share.

Every number comes through the same door: an observation is cut down, attacked, and scored like a
cell of a study, beside its control, in which the very same cut is filled with noise.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from pydantic import TypeAdapter
from torch import Tensor

from fedaudit.captures.shared_things import expose, reads
from fedaudit.captures.simulate.simulated import simulate, without_update
from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import (
    AttackError,
    ConfigError,
    FedauditError,
    KnowledgeError,
    UnknownNameError,
)
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Attack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import check_knowledge, threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.federation.simulation import Simulation, State
from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.score import score
from fedaudit.study.judge import judge_of
from fedaudit.study.run_folder import RunFolder
from fedaudit.why.map_only import MapOnly
from fedaudit.why.pieces import Pieces

STAND_BY = "map_only"
"""Attacks what is too little for all attacks of the scenario."""

Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Leak:
    """What one attacked observation gave.

    Attributes:
        images: One score an image of the target.
        attack: Whose reconstruction was scored: the best by its own objective.
        objective: What it reached; NaN becomes None.
    """

    images: tuple[ImageScore, ...]
    attack: str
    objective: float | None

    @property
    def ssim(self) -> float:
        """Mean over the images."""
        return sum(i.metrics.get("ssim", 0.0) for i in self.images) / len(self.images)

    @property
    def cosine(self) -> float | None:
        """Mean identity cosine."""
        known = [i.cosine for i in self.images if i.cosine is not None]
        return sum(known) / len(known) if known else None

    @property
    def people(self) -> str:
        """Whom the target shows: targets of the same people are one observation to an interval."""
        return " ".join(sorted({i.person for i in self.images}))


@cache
def leak_adapter() -> TypeAdapter[Leak]:
    """Of the pieces on disk."""
    return TypeAdapter(Leak)


@dataclass(frozen=True)
class Exposure:
    """Part of what was shared and known, as an attacker is shown it.

    Attributes:
        only: Names of shared things or parameters, as `captures.exposed.expose` takes them.
        labels: Whether the labels are known: as the scenario's threat model says (None), yes, no.
    """

    only: tuple[str, ...]
    labels: bool | None = None

    @property
    def key(self) -> str:
        """The same for the same things in another order."""
        names = ",".join(sorted(self.only))
        return f"{hashlib.sha256(names.encode()).hexdigest()[:16]}-{self.labels}"

    def of(self, seen: Observation, secret: Secret) -> Observation:
        """The observation cut down to this."""
        cut = expose(seen, self.only)
        if self.labels is None:
            return cut
        # The fact is granted here as a threat model would grant it, before any attack runs.
        return replace(cut, labels=secret.labels if self.labels else None)


@dataclass(frozen=True)
class Subject:
    """A scenario, ready to be attacked piece by piece.

    Attributes:
        attacks: By label, those of the scenario that read what an honest server sees.
        skipped: The others, each with the reason.
        gallery, embed: Judge of identity; None where there is none.
    """

    study: Study
    scenario: Scenario
    simulation: Simulation
    attacks: dict[str, Attack]
    skipped: tuple[str, ...]
    gallery: Gallery | None
    embed: Embed | None
    folder: RunFolder
    pieces: Pieces
    targets: int
    seed: int
    tell: Tell

    def state(self, number: int) -> State:
        """What everybody holds before round `number`; trained once, on from what there is."""
        if number == 1:
            return self.simulation.fresh()
        try:
            return State.from_flat(self.folder.model(f"round-{number:04d}"))
        except FedauditError:  # not trained yet, or damaged
            pass
        models = (self.folder.path / "models").glob("round-*.json")
        done = [int(path.stem.removeprefix("round-")) for path in models]
        start = max((k for k in done if k < number), default=1)
        state = self.state(start)

        def progress(k: int, n: int) -> None:
            self.tell(f"training to round {number}", k, n)

        state, _ = self.simulation.train(state, range(start, number), progress)
        self.folder.save_model(f"round-{number:04d}", state.flat(), {})
        return state

    def capture(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        """What the client of this target shares in round `number` (the scenario's if not given)."""
        scenario, number = self.scenario, number or self.scenario.round
        return simulate(
            simulation or self.simulation,
            self.state(number),
            target=target,
            batch_size=scenario.batch_size,
            training=scenario.audited_training,
            threat=threat_model(scenario.threat_model, scenario.grant, scenario.deny),
            round=number,
            seed=self.seed,
            only=scenario.expose,
            rounds_seen=scenario.rounds_seen,
        )

    def strike(self, seen: Observation, *key: object) -> tuple[str, Reconstruction] | None:
        """Attack; of several attacks keep the best by its own objective, never by the truth.

        Objectives of two attacks have no common scale. Each is divided by what the same attack
        reaches on noise in place of what was shared: how much of it is explained beyond chance.

        Returns:
            The attack's label and its reconstruction; None where no attack reads what is seen.
        """
        found: list[tuple[float, str, Reconstruction]] = []
        able = [n for n, a in self.attacks.items() if any(reads(a.reads, s) for s in seen.shared)]
        for name in able:
            made = self._try(name, seen, *key)
            if made is not None:
                beyond = self._beyond(name, made, seen, *key) if len(able) > 1 else 0.0
                found.append((beyond, name, made))
        if not found and any(reads(MapOnly.reads, s) for s in seen.shared):
            made = self._try(STAND_BY, seen, *key)
            found += [(0.0, STAND_BY, made)] if made is not None else []
        if not found:
            return None
        _, name, made = min(found, key=lambda row: row[0])
        return name, made

    def _try(self, name: str, seen: Observation, *key: object) -> Reconstruction | None:
        """A reconstruction; None where the attack can make nothing of so small a part."""
        attack = MapOnly() if name == STAND_BY else self.attacks[name]
        try:
            return attack(seen, generator=self._start(name, *key))
        except (AttackError, KnowledgeError):
            return None

    def _beyond(self, name: str, made: Reconstruction, seen: Observation, *key: object) -> float:
        """The objective, in units of what the attack reaches on noise; infinity for none."""
        base = self.control(name, seen, key, key)
        if base is None or not base[1].objective > 0 or math.isnan(made.objective):
            return math.inf
        return made.objective / base[1].objective

    def leak(
        self,
        capture: Capture,
        exposure: Exposure,
        target: int,
        *,
        number: int | None = None,
        role: Literal["audit", "prior_only"] = "audit",
    ) -> Leak | None:
        """Attack a capture cut down to `exposure`, and score.

        The control runs the attack that was best on the real thing.

        Returns:
            None where no attack can read it.
        """
        number = number or self.scenario.round
        key = f"leak/r{number}/t{target}/{exposure.key}/{role}"

        def make() -> Leak | None:
            assert capture.secret is not None  # simulated captures always know it
            seen = exposure.of(capture.seen, capture.secret)
            if role == "audit":
                struck = self.strike(seen, number, target)
            else:
                real = self.leak(capture, exposure, target, number=number)
                start, noise = (number, target), (target,)
                struck = None if real is None else self.control(real.attack, seen, start, noise)
            return None if struck is None else self.judged(capture.secret, *struck)

        kind: TypeAdapter[Leak | None] = TypeAdapter(Leak | None)
        return self.pieces.get(key, kind, make)

    def control(
        self, attack: str, seen: Observation, start: Sequence[object], noise: Sequence[object]
    ) -> tuple[str, Reconstruction] | None:
        """What an attack makes of noise in place of what was shared.

        Args:
            attack: Its label.
            seen: What the attack saw.
            start: Key of its randomness: the same as in the attack that it is the control of.
            noise: Key of the noise. One for a target, whatever is shown of it in whatever round, so
                that cuts and rounds are comparable.
        """
        empty = without_update(seen, generator_for("why prior", self.seed, *noise))
        made = self._try(attack, empty, *start)
        return None if made is None else (attack, made)

    def judged(self, secret: Secret, attack: str, made: Reconstruction) -> Leak:
        """Score a reconstruction as a study does."""
        images, _, _ = score(secret, made, gallery=self.gallery, embed=self.embed)
        finite = bool(torch.isfinite(torch.tensor(made.objective)))
        return Leak(images, attack, made.objective if finite else None)

    def reconstruction(self, capture: Capture, target: int) -> tuple[Tensor, Tensor] | None:
        """Images `[N, C, H, W]` from all that is shared, and from noise, as the originals go."""
        assert capture.secret is not None
        key = (self.scenario.round, target)
        struck = self.strike(capture.seen, *key)
        base = struck and self.control(struck[0], capture.seen, key, (target,))
        if not struck or not base:
            return None
        both = (struck[1], base[1])
        made = [score(capture.secret, r, gallery=None, embed=None)[2] for r in both]
        return made[0], made[1]

    def _start(self, attack: str, *key: object) -> torch.Generator:
        return generator_for("why attack", self.scenario.name, attack, self.seed, *key)


def prepare(
    study: Study, scenario: Scenario, pieces: Pieces, *, targets: int, seed: int, tell: Tell
) -> Subject:
    """Everything that the parts of an explanation share.

    The scenario's first defense is the one in place.

    Raises:
        ConfigError: None of the scenario's attacks works on what an honest server sees.
        KnowledgeError: One needs a fact that the scenario's threat model does not grant.
    """
    folder = RunFolder(pieces.path)
    defense = scenario.defenses[0]
    attacks: dict[str, Attack] = {}
    skipped: list[str] = []
    for choice in scenario.attacks:
        attack: Attack = create("attacks", choice.name, choice.settings)
        if Knowledge.MANIPULATION in attack.needs:
            skipped.append(f"{choice.label}: it changes what the server sends")
        else:
            attacks[choice.label] = attack
    if not attacks:
        raise ConfigError(
            f"scenario {scenario.name!r} has no attack on an honest server: "
            f"{'; '.join(skipped)}. Add one that reads updates, such as map_inversion."
        )
    threat = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    for name, attack in attacks.items():
        check_knowledge(name, attack, threat)
    tell("calibrating the gallery", 0, 1)
    gallery, embed = judge_of(study, folder, scenario)
    return Subject(
        study=study,
        scenario=scenario,
        simulation=simulation_of(study, scenario, defense),
        attacks=attacks,
        skipped=tuple(skipped),
        gallery=gallery,
        embed=embed,
        folder=folder,
        pieces=pieces,
        targets=targets,
        seed=seed,
        tell=tell,
    )


def scenario_of(study: Study, name: str | None) -> Scenario:
    """A scenario by name; the first if no name is given.

    Raises:
        UnknownNameError: None of that name.
    """
    known = {scenario.name: scenario for scenario in study.scenarios}
    if name is None:
        return study.scenarios[0]
    if name not in known:
        raise UnknownNameError("scenario", name, known)
    return known[name]


def all_of(names: Sequence[str]) -> Exposure:
    """Everything that was shared."""
    return Exposure(tuple(names))
