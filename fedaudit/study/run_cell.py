"""The two kinds of work in a study: train a federation, attack one of its updates.

The truth of a cell is opened after the attack has returned, for the scorer and for the word that
says whether the attack took the defense into account.
"""

import inspect
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import as_assumed, assume
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.captures.audit import recorded_targets
from fedaudit.captures.audit.canary import rgb
from fedaudit.captures.audit.recorded_positive import positive_capture, scored
from fedaudit.captures.shared_things import not_attacked, nothing_to_attack, told
from fedaudit.captures.simulate.simulated import simulate, without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.claims import Budget
from fedaudit.core.errors import AttackError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec
from fedaudit.core.protocols import Attack, Defense, ManipulatingAttack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import Cell, ImageScore, Trial
from fedaudit.data.provenance import facts
from fedaudit.defenses.chain import changed, parts_of
from fedaudit.defenses.composition import Planned, Spends, together
from fedaudit.federation.abilities import Notes
from fedaudit.federation.simulation import Simulation, State
from fedaudit.federation.utility import measure
from fedaudit.models.derivatives import twice_differentiable
from fedaudit.scoring.partial_truth import match_originals, search
from fedaudit.scoring.score import score
from fedaudit.study.jobs import NOISE, POSITIVE, TrainJob, model_job
from fedaudit.study.judge import faces_of, judge_of, split_of
from fedaudit.study.run_folder import RunFolder


def run_train(study: Study, job: TrainJob, folder: RunFolder) -> None:
    """Train a federation from a fresh model, measure its utility if the study asks, keep both."""
    simulation = _simulation(study, job.network, job.method, job.defense, job.federation)
    state, seconds = simulation.train(simulation.fresh(), range(1, job.rounds + 1))
    measured = {}
    if study.utility and job.rounds == job.federation.rounds:
        utility = measure(
            simulation,
            state,
            rounds=job.rounds,
            seconds=seconds,
            budget=_composed(simulation, job.rounds),
        )
        measured["utility"] = asdict(utility) if utility else None
    folder.save_model(job.key, state.flat(), measured)


def run_cell(
    study: Study, cell: Cell, folder: RunFolder, evidence: str, device: str = "cpu"
) -> None:
    """Capture, attack on `device`, score, keep."""
    if not folder.facts():
        known = recorded_targets.facts_of(study) if study.recorded else facts(faces_of(study))
        folder.save_facts({**known, "notes": notes_of(study)})
    scenario = next(s for s in study.scenarios if s.name == cell.scenario)
    capture = capture_of(study, scenario, cell, folder)
    sent = told(capture.seen, _attack(scenario, cell), scenario.expose)
    if why := nothing_to_attack(sent, cell):
        folder.save_trial(not_attacked(cell, sent, why), {})
        return
    checkpoint = Checkpoint(folder.checkpoint(cell.key))
    reconstruction = reconstruct(scenario, cell, capture, device=device, checkpoint=checkpoint)

    judged = judge(study, scenario, cell, folder, capture, reconstruction)
    control = cell.role in POSITIVE
    if evidence == "full" and capture.secret and not control:
        folder.save_evidence(cell.scenario, cell.target, originals(capture.secret))
    other = None
    if study.recorded and cell.role == "audit":
        other = recorded_targets.explained_other(study, scenario, cell, reconstruction)
    trial = Trial(
        cell=cell,
        images=judged.images,
        labels_correct=judged.labels,
        objective=reconstruction.objective,
        iterations=reconstruction.iterations,
        gradient_evaluations=reconstruction.gradient_evaluations,
        seconds=reconstruction.seconds,
        adaptive=reconstruction.adaptive,
        budget=capture.budget,
        history=reconstruction.history,
        sent=sent,
        of=reconstruction.of,
        explained=recorded_targets.explained(capture.seen, reconstruction, own=cell.role == "audit")
        if study.recorded and not control
        else None,
        explained_other=other,
    )
    folder.save_trial(trial, judged.tensors)


@dataclass(frozen=True)
class Judged:
    """Scores of a cell's images, the share of labels recovered, and what the report draws."""

    images: tuple[ImageScore, ...]
    labels: float | None
    tensors: dict[str, Tensor]


def judge(
    study: Study,
    scenario: Scenario,
    cell: Cell,
    folder: RunFolder,
    capture: Capture,
    found: Reconstruction,
) -> Judged:
    """Score a reconstruction against the truth, or look for it in the gallery where there is none.

    Args:
        study: Of the cell.
        scenario: Of the cell.
        cell: What was attacked.
        folder: Keeps the gallery.
        capture: Its truth is opened here, after the attack has returned.
        found: What came back.
    """
    if cell.role in POSITIVE and capture.secret:
        return Judged(scored(capture.secret, found), None, {"images": found.images.clamp(0, 1)})
    gallery, embed = judge_of(study, folder, scenario)
    if capture.secret is None:
        client = recorded_targets.targets_of(study, scenario.name)[cell.target].client
        images = found.images.clamp(0, 1)
        scores = search(rgb(images), client=client, gallery=gallery, embed=embed)
        return Judged(scores, None, {"images": images})
    secret = capture.secret
    tensors: dict[str, Tensor] = {}
    if study.recorded:
        secret, chosen = match_originals(secret, found.images.clamp(0, 1))
        tensors["originals"] = chosen  # which photo each image stands for differs by attack
        shown = tuple(capture.secret.people)
        other: str | None = recorded_targets.wrong_person(study, scenario, cell, shown)
        other = other if gallery and other in gallery.people else None
    else:
        # Of a sum, everybody whom it shows: at whichever client they are.
        mine = secret.portrayed if found.of == "people" else secret.people
        other = wrong_person_for(study, scenario, cell, mine)
    scores, labels, images = score(secret, found, gallery=gallery, embed=embed, wrong_person=other)
    return Judged(scores, labels, {"images": images, **tensors})


def capture_of(study: Study, scenario: Scenario, cell: Cell, folder: RunFolder) -> Capture:
    """What the audited client of this cell shares, or shared in the run that was recorded."""
    if cell.role in POSITIVE:
        return positive_capture(study, scenario, cell)
    if study.recorded:
        return recorded_targets.capture_of(study, scenario, cell)
    defense = _by_label(scenario.defenses, cell.defense)
    federation = study.federation_of(scenario)
    simulation = _simulation(study, scenario.network, scenario.method, defense, federation)
    before = model_job(study, scenario, defense)
    state = simulation.fresh() if before is None else _trained(folder, before.key)
    return simulate(
        simulation,
        state,
        target=cell.target,
        batch_size=scenario.batch_size,
        training=scenario.audited_training,
        threat=threat_model(scenario.threat_model, scenario.grant, scenario.deny),
        round=scenario.round,
        seed=cell.seed,
        malicious=_malicious(scenario, cell),
        only=scenario.expose,
        rounds_seen=scenario.rounds_seen,
    )


def _malicious(scenario: Scenario, cell: Cell) -> ManipulatingAttack | None:
    """The cell's attack, if it chooses what the server sends; its prior-only control does too."""
    attack = _attack(scenario, cell)
    if attack is None or Knowledge.MANIPULATION not in attack.needs:
        return None
    return attack if isinstance(attack, ManipulatingAttack) else None


def _attack(scenario: Scenario, cell: Cell) -> Attack | None:
    """The cell's attack; None for the noise control, which has none."""
    if cell.role == NOISE:
        return None
    choice = _by_label(scenario.attacks, cell.attack)
    attack: Attack = create("attacks", choice.name, choice.settings)
    return attack


def reconstruct(
    scenario: Scenario,
    cell: Cell,
    capture: Capture,
    *,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
) -> Reconstruction:
    """Run the cell's attack, or its control, on what was seen.

    Args:
        scenario: Says how the attack is set.
        cell: What is attacked with what.
        capture: What was intercepted; the attack is shown `seen` alone.
        device: Where the attack computes; a torch device.
        checkpoint: Lets an attack that takes one go on where it was interrupted.
    """
    seen = capture.seen
    # The same start for an attack, its control and every defense: their differences are paired.
    generator = generator_for("attack", cell.scenario, cell.attack, cell.target, cell.seed)
    attack = _attack(scenario, cell)
    if attack is None:
        shape = _shape(capture)
        drawn, nobody = torch.rand(shape, generator=generator), torch.full(shape[:1], -1)
        return Reconstruction(drawn, nobody, adaptive="none needed")
    if cell.role in {"prior_only", "positive_prior"}:
        seen = without_update(seen, generator_for("prior-only", cell.key))
    adapt = _by_label(scenario.attacks, cell.attack).adapt
    resumable = "checkpoint" in inspect.signature(attack).parameters
    extra: dict[str, Any] = {"checkpoint": checkpoint} if resumable and checkpoint else {}
    told = assume(seen, adapt).to(device)
    with twice_differentiable():
        result: Reconstruction = attack(told, generator=generator, **extra)
    # The attack has returned: what it could not be told of may be known now.
    used = capture.secret.defense if capture.secret else None
    return as_assumed(result, seen, adapt, used)


def _shape(capture: Capture) -> tuple[int, ...]:
    """Of random images in place of a reconstruction."""
    seen, secret = capture.seen, capture.secret
    if seen.batch_size is not None and seen.image_shape is not None:
        return (seen.batch_size, *seen.image_shape)
    if secret is not None:
        return tuple(secret.images.shape)
    raise AttackError(
        "random images need the number and size of the client's images: state examples and "
        "image_shape."
    )


def wrong_person_for(
    study: Study, scenario: Scenario, cell: Cell, shown: Collection[str]
) -> str | None:
    """Somebody at the next client who is not among `shown`; None if there is nobody."""
    clients = split_of(study, study.federation_of(scenario)).clients
    next_client = clients[(cell.target + 1) % len(clients)]
    start = cell.target // len(clients) % len(next_client)
    turned = (*next_client[start:], *next_client[:start])
    return next((person for person in turned if person not in shown), None)


def simulation_of(study: Study, scenario: Scenario, defense: Choice) -> Simulation:
    """The federation that this scenario audits, with this defense."""
    federation = study.federation_of(scenario)
    return _simulation(study, scenario.network, scenario.method, defense, federation)


def notes_of(study: Study) -> tuple[str, ...]:
    """What defenses do to the networks of a study, for its plan and its report."""
    if study.recorded:
        return ()
    notes: dict[str, None] = {}
    for scenario in study.scenarios:
        for defense in scenario.defenses:
            parts = parts_of(create("defenses", defense.name, defense.settings))
            if not any(isinstance(part, Notes) for part in parts):
                continue  # faces need not be loaded for a plan
            for note in simulation_of(study, scenario, defense).notes:
                notes[f"{defense.label} on {scenario.network.label}: {note}."] = None
    return tuple(notes)


def originals(secret: Secret) -> dict[str, Tensor]:
    """What a report shows beside reconstructions: the photos, and a portrait of each person."""
    kept = {"images": secret.images[: secret.audited]}
    if secret.portraits is not None:
        kept |= {f"portrait/{p}": secret.portraits[k] for k, p in enumerate(secret.portrayed)}
    return kept


def _simulation(
    study: Study, network: Choice, method: Choice, defense: Choice, federation: Federation
) -> Simulation:
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

    return replace(simulation, defense=changed(simulation.defense, planned))


def _composed(simulation: Simulation, rounds: int) -> Budget | None:
    """The guarantee of the whole training, for the client with the fewest photos."""
    plan = replace(simulation.plan, rounds=rounds)
    private = [p for p in parts_of(simulation.defense) if isinstance(p, Spends)]
    return reduce(together, (part.composed(plan) for part in private), None)


def _by_label(choices: tuple[Choice, ...], label: str) -> Choice:
    return next(choice for choice in choices if choice.label == label)


@lru_cache(maxsize=4)
def _trained(folder: RunFolder, key: str) -> State:
    return State.from_flat(folder.model(key))
