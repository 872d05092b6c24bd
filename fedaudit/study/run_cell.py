"""The two kinds of work in a study: train a federation, attack one of its updates.

The truth of a cell is opened after the attack has returned, for the scorer and for the word that
says whether the attack took the defense into account.
"""

import inspect
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import as_assumed, assume
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.captures.simulate.simulated_source import federate
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError
from fedaudit.core.protocols import Attack, Halves
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.trial import POSITIVE, Cell, ImageScore, Lineup, Trial
from fedaudit.defenses.composition import PrivacyLedger
from fedaudit.federation.utility import measure
from fedaudit.models.derivatives import twice_differentiable
from fedaudit.scoring.identity import Embed, Gallery, rgb
from fedaudit.scoring.lineup import lineup
from fedaudit.scoring.partial_truth import match_originals, search
from fedaudit.scoring.score import Judge, score
from fedaudit.study.jobs import NOISE, TrainJob
from fedaudit.study.judge import judge_of, judges_beside
from fedaudit.study.run_folder import FACTS, RunFolder
from fedaudit.study.sent_things import not_attacked, nothing_to_attack, sent_things
from fedaudit.study.sources import source_of, statements


def run_train(study: Study, job: TrainJob, folder: RunFolder) -> None:
    """Train a federation from a fresh model, measure its utility if the study asks, keep both."""
    simulation = federate(study, job.network, job.method, job.defense, job.federation)
    simulation, ledger = replace(simulation, seed=job.seed), PrivacyLedger()
    state, seconds = simulation.train(
        simulation.fresh(), range(1, job.rounds + 1), account=ledger.add
    )
    values = {}
    if study.utility and job.rounds == job.federation.rounds:
        utility = measure(
            simulation,
            state,
            rounds=job.rounds,
            seconds=seconds,
            claims=ledger.weakest(),
            costs=job.seed == study.seeds[0],
        )
        values["utility"] = asdict(utility) if utility else None
    folder.save_model(job.key, state.flat(), values)


def run_cell(
    study: Study, cell: Cell, folder: RunFolder, evidence: str, device: str = "cpu"
) -> None:
    """Capture a client's round, attack it on `device`, score the result and keep it."""
    source = source_of(study, folder)
    if not (folder.path / FACTS).exists():
        folder.save_facts(statements(study, source))
    scenario = study.scenario(cell.scenario)
    attack = attack_of(scenario, cell)
    if cell.role == "half_steps" and not isinstance(attack, Halves):
        why = "it does not say what it is with half of its steps"
        folder.save_trial(not_attacked(cell, (), why), {})
        return
    capture = source.capture(cell, attack)
    things = sent_things(capture.seen, attack, scenario.expose)
    if why := nothing_to_attack(things, capture.seen.shared, cell):
        folder.save_trial(not_attacked(cell, things, why), {})
        return
    place = folder.checkpoint(cell.key)
    checkpoint = Checkpoint(place) if place else None
    reconstruction = reconstruct(
        scenario, cell, capture, attack, device=device, checkpoint=checkpoint
    )

    scores = judge(study, scenario, cell, folder, capture, reconstruction)
    if evidence == "full" and capture.secret and cell.role not in POSITIVE:
        folder.save_evidence(cell.scenario, cell.target, originals(capture.secret))
    shares = source.explained(cell, capture.seen, reconstruction)
    trial = Trial(
        cell=cell,
        images=scores.images,
        labels_correct=scores.labels,
        objective=reconstruction.objective,
        iterations=reconstruction.iterations,
        gradient_evaluations=reconstruction.gradient_evaluations,
        seconds=reconstruction.seconds,
        adaptive=reconstruction.adaptive,
        claims=capture.claims,
        history=reconstruction.history,
        sent=things,
        of=reconstruction.of,
        explained=shares.own,
        explained_other=shares.other,
        control=capture.control,
        lineup=scores.lineup,
        restarts=reconstruction.restarts,
        closed_form=reconstruction.closed_form,
        searched_by=reconstruction.searched_by,
        unused=reconstruction.unused,
    )
    folder.save_trial(trial, scores.tensors)


@dataclass(frozen=True)
class Judged:
    """Scores of a cell's images, the share of labels recovered, what the report draws and tests."""

    images: tuple[ImageScore, ...]
    labels: float | None
    tensors: dict[str, Tensor]
    lineup: Lineup | None = None


def judge(
    study: Study,
    scenario: Scenario,
    cell: Cell,
    folder: RunFolder,
    capture: Capture,
    found: Reconstruction,
) -> Judged:
    """Score a reconstruction against the truth, or look for it in the gallery where there is none.

    The truth of the capture is opened here, after the attack has returned.
    """
    gallery, embed, beside = judges_of(study, folder, scenario)
    if capture.secret is None:
        images = found.images.clamp(0, 1)
        scores = search(
            rgb(images), client=capture.seen.client, gallery=gallery, embed=embed, beside=beside
        )
        return Judged(scores, None, {"images": images})
    secret = capture.secret
    units = embed(found.images.clamp(0, 1)) if gallery and embed else None
    suspects = None if gallery is None or units is None else lineup(secret, found, gallery, units)
    tensors: dict[str, Tensor] = {}
    other = source_of(study, folder).wrong_person(cell, secret, found)
    if secret.candidates or cell.role in POSITIVE:
        secret, index = match_originals(secret, found.images.clamp(0, 1))
        tensors["originals"] = index  # which photo each image stands for differs by attack
    scores, labels, images = score(
        secret,
        found,
        gallery=gallery,
        embed=None if units is None else lambda _: units,  # embedding takes longest
        wrong_person=other,
        beside=beside,
        originals=embed if cell.role == "audit" and cell.seed == study.seeds[0] else None,
    )
    return Judged(scores, labels, {"images": images, **tensors}, suspects)


def judges_of(
    study: Study, folder: RunFolder, scenario: Scenario
) -> tuple[Gallery | None, Embed | None, tuple[Judge, ...]]:
    """The gallery and the embedder that decide identity, and the judges beside them."""
    gallery, embed = judge_of(study, folder, scenario)
    return gallery, embed, judges_beside(study, folder, scenario) if gallery else ()


def attack_of(scenario: Scenario, cell: Cell) -> Attack | None:
    """The cell's attack; None for the noise control, which has none."""
    if cell.role == NOISE:
        return None
    choice = _by_label(scenario.attacks, cell.attack)
    attack: Attack = create("attacks", choice.name, choice.settings)
    return attack.halved() if cell.role == "half_steps" and isinstance(attack, Halves) else attack


def reconstruct(
    scenario: Scenario,
    cell: Cell,
    capture: Capture,
    attack: Attack | None,
    *,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
) -> Reconstruction:
    """Run the cell's attack, or its control, on what was seen.

    The attack (`attack_of`; None for random images) is shown what was seen alone. A checkpoint
    lets one that takes it go on where it was interrupted.
    """
    seen = capture.seen
    # The same start for an attack, its control and every defense: their differences are paired.
    generator = generator_for("attack", cell.scenario, cell.attack, cell.target, cell.seed)
    if attack is None:
        shape = _shape(capture)
        noise, nobody = torch.rand(shape, generator=generator), torch.full(shape[:1], -1)
        return Reconstruction(noise, nobody, adaptive="none needed")
    adapt = _by_label(scenario.attacks, cell.attack).adapt
    resumable = "checkpoint" in inspect.signature(attack).parameters
    extra: dict[str, Any] = {"checkpoint": checkpoint} if resumable and checkpoint else {}
    view = assume(seen, adapt).to(device)
    with twice_differentiable():
        result: Reconstruction = attack(view, generator=generator, **extra)
    # The attack has returned: what it could not be told of may be known now.
    facts = capture.secret.defense if capture.secret else None
    return as_assumed(result, seen, adapt, facts)


def _shape(capture: Capture) -> tuple[int, ...]:
    """Shape of the random images that stand for a reconstruction in the noise control."""
    seen, secret = capture.seen, capture.secret
    if seen.batch_size is not None and seen.image_shape is not None:
        return (seen.batch_size, *seen.image_shape)
    if secret is not None:
        return tuple(secret.images.shape)
    raise AttackError(
        "random images need the number and size of the client's images: state examples and "
        "image_shape."
    )


def originals(secret: Secret) -> dict[str, Tensor]:
    """What a report shows beside reconstructions: the photos, and a portrait of each person."""
    tensors = {"images": secret.images[: secret.audited]}
    if secret.portraits is not None:
        tensors |= {f"portrait/{p}": secret.portraits[k] for k, p in enumerate(secret.portrayed)}
    return tensors


def _by_label(choices: tuple[Choice, ...], label: str) -> Choice:
    return next(choice for choice in choices if choice.label == label)
