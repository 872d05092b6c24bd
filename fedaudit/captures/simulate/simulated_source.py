"""The simulated federation of a study as the source of its captures."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from fedaudit.captures.simulate.invented_clients import NOISE, without_target
from fedaudit.captures.simulate.known_controls import known_controls
from fedaudit.captures.simulate.prior_overlap import overlaps
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.study_faces import faces_of, gallery_of, split_of
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.protocols import Attack, Defense, ManipulatingAttack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create, is_ours
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.source import Explained, FaceEmbedder, SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import NOISE_TARGETS, Cell
from fedaudit.data import provenance
from fedaudit.data.face_set import class_of
from fedaudit.defenses.chain import change_each, parts_of
from fedaudit.defenses.composition import Planned
from fedaudit.federation.abilities import Notes
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation

LIMITATIONS = (
    "Only the listed attacks were run. A stronger attack may succeed where these did not; a longer "
    "or better tuned one too.",
    "The federation is simulated: real devices, networks and schedules were not part of this.",
    "Identity is judged by the stated networks at the stated FMR, calibrated on the people of this "
    "set: the first decides.",
    "A threshold calibrated on photos says little about images that are not faces; the noise and "
    "prior-only controls show how often such images match.",
    "The prior-only control attacks the update of an invented person (of sets without people: of "
    "other images), once for each defense and target. The control by noise is run on the first "
    f"{NOISE_TARGETS} targets of each scenario, under its first defense.",
    "A stated ε is the accountant's, for as many rounds as it says; more rounds spend more.",
)


@dataclass(frozen=True)
class SimulatedSource:
    """Captures of one client's round in the study's simulated federation.

    Attributes:
        study: Says what is simulated.
        trained: What server and clients hold before the audited round of a scenario under a
            defense; None before the first.
    """

    study: Study
    trained: Callable[[Scenario, Choice], State | None]

    def capture(self, cell: Cell, attack: Attack | None = None) -> Capture:
        """What the cell's client shares, and all that is behind it."""
        scenario = self.study.scenario(cell.scenario)
        defense = next(choice for choice in scenario.defenses if choice.label == cell.defense)
        simulation = simulation_of(self.study, scenario, defense)
        state = self.trained(scenario, defense)
        manipulates = attack is not None and Knowledge.MANIPULATION in attack.needs
        malicious = attack if manipulates and isinstance(attack, ManipulatingAttack) else None
        simulate_at = partial(
            simulate,
            target=cell.target,
            batch_size=scenario.batch_size,
            training=scenario.audited_training,
            threat=threat_model(scenario.threat_model, scenario.grant, scenario.deny),
            round=scenario.round,
            seed=cell.seed,
            malicious=malicious,
            only=scenario.expose,
            rounds_seen=scenario.rounds_seen,
        )
        state = simulation.fresh() if state is None else state
        capture = simulate_at(simulation, state)
        if cell.role == "update_noise":
            empty = without_update(capture.seen, generator_for("update noise", cell.key))
            return replace(capture, seen=empty, control=NOISE)
        if cell.role != "prior_only":
            return capture
        other = without_target(simulation, state, cell.target, capture.seen.shared)
        return replace(simulate_at(*other[:2]), secret=capture.secret, control=other[2])

    def facts(self) -> SourceFacts:
        """Everything is known of what is simulated."""
        attacks = {c.label: c.name for scenario in self.study.scenarios for c in scenario.attacks}
        strangers = tuple(label for label, name in attacks.items() if not is_ours("attacks", name))
        return SourceFacts(overlaps=overlaps(self.study), strangers=strangers)

    def limitations(self) -> tuple[str, ...]:
        """What a simulation cannot show."""
        return (*LIMITATIONS, *known_controls(self.study))

    def notes(self) -> tuple[str, ...]:
        """What defenses do to the study's networks."""
        notes: dict[str, None] = {}
        if self.study.data.settings.get("align") or self.study.of_pictures:
            faces = faces_of(self.study)
            notes = dict.fromkeys(faces.notes)
            left_out = Counter(f"{source} ({why})" for source, why in faces.left_out)
            if left_out:
                items = ", ".join(f"{one} × {n}" if n > 1 else one for one, n in left_out.items())
                notes[f"Left out: {items}."] = None
        for scenario in self.study.scenarios:
            for defense in scenario.defenses:
                parts = parts_of(create("defenses", defense.name, defense.settings))
                if not any(isinstance(part, Notes) for part in parts):
                    continue  # faces need not be loaded for a plan
                for note in simulation_of(self.study, scenario, defense).notes:
                    notes[f"{defense.label} on {scenario.network.label}: {note}."] = None
        return tuple(notes)

    def provenance(self) -> dict[str, Any]:
        """Versions of the software, and hashes of the face set."""
        return provenance.facts(faces_of(self.study))

    def gallery(self, federation: Federation, embedder: FaceEmbedder) -> dict[str, Tensor] | None:
        """Embeddings of everybody's photos that do not train."""
        return gallery_of(self.study, federation, embedder)

    def wrong_person(self, cell: Cell, secret: Secret, found: Reconstruction) -> str | None:
        """Somebody at the next client who is not among those behind the update."""
        scenario = self.study.scenario(cell.scenario)
        people = secret.portrayed if found.of == "people" else secret.people
        return wrong_person_for(self.study, scenario, cell, people)

    def explained(self, cell: Cell, seen: Observation, found: Reconstruction) -> Explained:
        """Not measured: the photos themselves are known."""
        del cell, seen, found
        return Explained()


def simulation_of(study: Study, scenario: Scenario, defense: Choice) -> Simulation:
    """The federation that this scenario audits, with this defense."""
    federation = study.federation_of(scenario)
    return federate(study, scenario.network, scenario.method, defense, federation)


def federate(
    study: Study, network: Choice, method: Choice, defense: Choice, federation: Federation
) -> Simulation:
    """A federation on the study's faces, with a defense that knows how it will train."""
    faces = faces_of(study)
    simulation = Simulation(
        network=ModelSpec(network.name, network.settings),
        faces=faces,
        split=split_of(study, federation),
        federation=federation,
        method=create("methods", method.name, method.settings),
        defense=create("defenses", defense.name, defense.settings),
        seed=study.seeds[0],
    )
    plan = simulation.plan

    def planned(part: Defense) -> Defense:
        return part.planned(plan) if isinstance(part, Planned) else part

    return replace(simulation, defense=change_each(simulation.defense, planned))


def wrong_person_for(
    study: Study, scenario: Scenario, cell: Cell, shown: Collection[str]
) -> str | None:
    """Somebody at the next client who is not among `shown`; None if there is nobody."""
    clients = split_of(study, study.federation_of(scenario)).clients
    next_client = clients[(cell.target + 1) % len(clients)]
    start = cell.target // len(clients) % len(next_client)
    rotation = (*next_client[start:], *next_client[:start])
    others = [person for person in rotation if person not in shown]
    kinds = {class_of(person) for person in shown}
    # Of pictures one of the same class, which is the harder to tell apart; of people anybody.
    return next((p for p in others if class_of(p) in kinds), next(iter(others), None))
