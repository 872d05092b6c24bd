"""From a recorded run to a study of it: what is attacked, with what, and knowing what.

Everything that decides the results, and everything that the report says of the recording, stands in
the study: a run goes on only with the same recording, and its report needs the recording no more.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedaudit.captures.audit.audit_notes import (
    description,
    notes,
    protection,
    some,
    training_text,
)
from fedaudit.captures.audit.audit_request import (
    Request,
    find_clients,
    find_rounds,
    find_truth,
)
from fedaudit.captures.audit.auditor_photos import all_originals, originals
from fedaudit.captures.audit.choose_attacks import Candidate, choose_attacks
from fedaudit.captures.audit.known_defenses import faint_noise
from fedaudit.captures.audit.recorded_labels import (
    deployed_label,
    protection_label,
)
from fedaudit.captures.audit.recorded_scenarios import ALONE, scenarios_of
from fedaudit.captures.claims.recorded_claims import unmet_claims
from fedaudit.captures.format.capture_network import model_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observe
from fedaudit.captures.format.stated_training import local_training
from fedaudit.captures.inspect.applicable_attacks import missing_knowledge
from fedaudit.captures.inspect.inspection import Inspection, inspect
from fedaudit.captures.inspect.model_fit import Fit, fit
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.printable import printable
from fedaudit.core.recorded_run import RECORDED, RecordedRun, RecordedTarget
from fedaudit.core.scenario import Choice, Study
from fedaudit.data.folder import SUFFIXES
from fedaudit.data.pseudonyms import key_of_folders, pseudonym
from fedaudit.models.network_file import digest_of, is_file
from fedaudit.scoring.identity import PAIRS_PER_FALSE_MATCH

POSITIVES = 3
"""Faces of the positive control."""


@dataclass(frozen=True)
class Plan:
    """A study of a capture, and what to say before it starts.

    Attributes:
        study: To run as any other.
        notes: What was assumed, left out or cannot be used, a sentence each.
    """

    study: Study
    notes: tuple[str, ...]


def study_of(request: Request) -> Plan:
    """Look at a capture, and make a study of it.

    Raises:
        UsageError: Nothing in it can be attacked, with what to state or correct; or something that
            was asked for is not there.
    """
    capture = StoredCapture(request.path)
    spec = model_of(capture.facts, request.model)
    rounds = find_rounds(capture, request.rounds)
    match = fit(capture, spec, rounds, request.rename)
    capture.renaming = match.renaming
    # What is seen reaches attacks: it is to come from the tensors, whatever headers say.
    inspection = inspect(capture, verify=True)
    truth = find_truth(request, inspection)
    clients = find_clients(request, inspection, truth)
    candidates: list[Candidate] = []
    for round in rounds:
        candidates += _usable(capture, spec, round, clients, truth, request, first=not candidates)
    if not candidates:
        raise UsageError(
            f"{request.path}: none of its updates can be attacked. "
            + (f"The first: {capture.problems[0]}. " if capture.problems else "")
            + "`fedaudit inspect` shows what the capture holds."
        )
    choices, left_out = choose_attacks(request.attacks, candidates)
    label = deployed_label(request.deployed, protection_label(inspection))
    scenarios, targets = scenarios_of(candidates, choices, label, spec, capture.facts)
    run = _recorded_run(request, truth, candidates, targets, left_out, capture, inspection, match)
    study = Study(
        name=printable(f"recorded run {request.path.resolve().name}"),
        description=description(targets, capture.facts, truth, request.gallery),
        scenarios=scenarios,
        data=Choice(RECORDED, run.settings()),
        size=min(1024, max(16, candidates[0].seen.image_shape[1]))
        if candidates[0].seen.image_shape
        else 64,
        utility=False,
        fmr=request.fmr,
        ceiling_floor=request.ceiling_floor,
        deployed=(label,),
        underpowered=sum(max(1, target.images) for target in targets) < ALONE,
    )
    remarks = [*match.notes, *notes(run, inspection)]
    if len({target.client for target in targets}) < ALONE and max(t.images for t in targets) <= 1:
        remarks.append(
            f"these are updates of fewer than {ALONE} clients, of one image each: whatever comes "
            "back, an exact test cannot tell a leak from chance. Record more clients"
        )
    if request.gallery is not None:
        remarks += _small_gallery(request.gallery, request.fmr)
    return Plan(study, tuple(remarks))


def _small_gallery(gallery: Path, fmr: float) -> list[str]:
    """What a gallery of too few people keeps from being said."""
    photos = [
        sum(file.suffix.lower() in SUFFIXES for file in person.iterdir())
        for person in gallery.expanduser().iterdir()
        if person.is_dir() and not person.name.startswith(".")
    ]
    pairs = sum(count // 2 for count in photos) * (len(photos) - 1)
    if pairs * fmr >= PAIRS_PER_FALSE_MATCH:
        return []
    at_percent = pairs * 1e-2 >= PAIRS_PER_FALSE_MATCH
    then = "matches are judged at 0.01" if at_percent else "nobody can be recognized"
    return [
        f"the gallery has {len(photos)} people and about {pairs:,} impostor pairs, and an FMR of "
        f"{fmr:g} takes {PAIRS_PER_FALSE_MATCH / fmr:,.0f}: {then}. Add people or photos, or raise "
        "--fmr"
    ]


def _people_without_row(
    request: Request, truth: Mapping[str, Path], rounds: Collection[int]
) -> list[str]:
    """People of the originals of whom the gallery has no photo."""
    if request.gallery is None:
        return []
    names = {path.name for path in request.gallery.expanduser().iterdir()}
    people = {
        person or client
        for client, path in truth.items()
        for round in rounds
        for person in originals(path, round).people
    }
    key = key_of_folders(str(request.gallery.expanduser().resolve()))
    return sorted(pseudonym(person, key) for person in people - names)


def _recorded_run(
    request: Request,
    truth: Mapping[str, Path],
    candidates: Sequence[Candidate],
    targets: tuple[RecordedTarget, ...],
    left_out: list[dict[str, str]],
    capture: StoredCapture,
    inspection: Inspection,
    match: Fit,
) -> RecordedRun:
    """All that the run and its report need to know of the capture."""
    training = local_training(capture.facts, candidates[0].members[0].message)
    rounds = sorted({target.round for target in targets})
    if (shape := candidates[0].seen.image_shape) is not None:
        all_originals(truth, rounds, shape)  # whatever is wrong with a photo is said now
    noisy = any(one.name == "noise" for one in inspection.protections)
    faint = [] if noisy else faint_noise(candidates[0].seen)
    unmet = unmet_claims(capture, inspection.protections)
    model = request.model or ""
    digest = digest_of(model) if is_file(model) else ""
    return RecordedRun(
        path=str(request.path.resolve()),
        gallery=str(request.gallery.expanduser().resolve()) if request.gallery else "",
        shape=candidates[0].seen.image_shape or (),
        targets=targets,
        positive=POSITIVES,
        seen=tuple(map(protection, (*inspection.protections, *faint, *unmet))),
        framework=printable(capture.facts.framework or ""),
        training=training_text(candidates[0].seen, training.assumed),
        unidentified=some(_people_without_row(request, truth, rounds)),
        assumed=tuple(map(printable, training.assumed)),
        left_out=tuple(left_out),
        anomalies=some(
            [f"round {a.round}: {a.client or 'all'}: {a.what}" for a in inspection.anomalies]
        ),
        problems=some([printable(str(problem)) for problem in capture.problems]),
        model=str(Path(model).expanduser().absolute()) if digest else model,
        model_sha256=digest,
        rename=match.renaming.rules,
        naming=match.notes,
    )


def _usable(
    capture: StoredCapture,
    spec: ModelSpec,
    round: int,
    clients: set[str] | None,
    truth: Mapping[str, Path],
    request: Request,
    *,
    first: bool,
) -> list[Candidate]:
    """The first messages of a round that can be attacked, by file name."""
    candidates: list[Candidate] = []
    for members, seen in observe(
        capture, spec, round, lambda one: clients is None or one.message.client in clients
    ):
        if len(candidates) == request.targets:
            break
        names = [one.message.client or "" for one in members]
        mine = {n: truth[n] for n in names if n in truth and seen.image_shape is not None}
        known = {
            printable(n): str(path) for n, path in mine.items() if originals(path, round).files
        }
        lacking = missing_knowledge(capture, members[0], seen)
        # Only the first is kept whole: one update is in memory at a time.
        slim = seen if first and not candidates else replace(seen, before={}, shared=())
        candidates.append(Candidate(members, slim, known, lacking))
    return candidates
