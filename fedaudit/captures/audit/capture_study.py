"""From a recorded run to a study of it: what is attacked, with what, and knowing what.

Everything that decides the results, and everything that the report says of the recording, stands in
the study: a run goes on only with the same recording, and its report needs the recording no more.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedaudit.captures.audit.audit_notes import (
    description,
    notes,
    protection,
    some,
    training_text,
)
from fedaudit.captures.audit.auditor_photos import all_originals, originals
from fedaudit.captures.audit.choose_attacks import Candidate, choose_attacks
from fedaudit.captures.audit.known_defenses import faint_noise
from fedaudit.captures.audit.recorded_labels import (
    deployed_label,
    protection_label,
    rounds_name,
    safe_label,
)
from fedaudit.captures.claims.recorded_claims import unmet_claims
from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.capture_network import model_of, network_name
from fedaudit.captures.format.capture_paths import slug
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observe
from fedaudit.captures.format.stated_training import local_training
from fedaudit.captures.inspect.applicable_attacks import missing_knowledge
from fedaudit.captures.inspect.inspection import Inspection, inspect
from fedaudit.captures.inspect.model_fit import Fit, fit
from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.printable import first_few, printable
from fedaudit.core.recorded_run import RECORDED, RecordedRun, RecordedTarget
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.threat_models import EXPLANATIONS
from fedaudit.data.folder import SUFFIXES
from fedaudit.data.pseudonyms import key_of_folders, pseudonym
from fedaudit.files.asset_sources import sha256
from fedaudit.models.network_file import digest_of, is_file
from fedaudit.scoring.identity import PAIRS_PER_FALSE_MATCH

ALONE = 6
"""Updates of a round that can say something by themselves: the fewest of which an exact test can
tell a leak from chance. Rounds of fewer are judged together."""
TARGETS = 16
POSITIVES = 3
"""Faces of the positive control."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `fedaudit audit` is asked for.

    Attributes:
        path: The capture.
        model: As `capture_network.model_of` takes it, trusted; None takes the capture's.
        rename: `OLD=NEW` each, what names of the recording are in the model; or `auto`.
        truth: Folder of a consenting client's photos, by client; the key "" is the only client.
        gallery: A folder a person.
        rounds, clients: Only these; None is all, or with `truth` those clients.
        attacks: None takes those that apply, of `DEFAULT_ATTACKS`.
        targets: Updates of each round at most.
        fmr: False match rate at which faces count as one person.
        ceiling_floor: Share of the gallery's own photos that must be recognized.
        deployed: What the clients deployed, as reports are to call it; "" takes what the capture
            states and its numbers show.
    """

    path: Path
    model: str | None = None
    rename: Sequence[str] = ()
    truth: Mapping[str, Path] = field(default_factory=dict)
    gallery: Path | None = None
    rounds: Collection[int] | None = None
    clients: Collection[str] | None = None
    attacks: Sequence[Choice] | None = None
    targets: int = TARGETS
    fmr: float = 1e-3
    ceiling_floor: float = 0.5
    deployed: str = ""


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
    rounds = _rounds(capture, request.rounds)
    match = fit(capture, spec, rounds, request.rename)
    capture.renaming = match.renaming
    # What is seen reaches attacks: it is to come from the tensors, whatever headers say.
    inspection = inspect(capture, verify=True)
    truth = _truth(request, inspection)
    clients = set(request.clients) if request.clients is not None else set(truth) or None
    if clients and (
        unknown := sorted(
            clients - _clients(inspection) - _clients_of_problems(inspection, clients)
        )
    ):
        raise ConfigError(
            f"{request.path} has no client {printable(unknown[0])!r}. Clients: "
            f"{_list_problems(inspection)}."
        )
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
    scenarios, targets = _scenarios(candidates, choices, label, spec, capture.facts)
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


def _rounds(capture: StoredCapture, choice: Collection[int] | None) -> tuple[int, ...]:
    rounds = capture.rounds()
    for number in choice or ():
        if number not in rounds:
            there = ", ".join(map(str, rounds[:20])) or "none"
            raise ConfigError(f"{capture.folder} has no round {number}. Rounds: {there}.")
    return tuple(sorted(set(choice))) if choice is not None else rounds


def _clients(inspection: Inspection) -> set[str]:
    return {name for one in inspection.rounds for name in one.clients}


def _clients_of_problems(inspection: Inspection, clients: Collection[str]) -> set[str]:
    """Those of the clients whose files cannot be used: a problem, and no name that is wrong."""
    return {c for c in clients if any(slug(c) in text for text in inspection.problems)}


def _list_problems(inspection: Inspection) -> str:
    return first_few(sorted(map(printable, _clients(inspection))), 10)


def _truth(request: Request, inspection: Inspection) -> dict[str, Path]:
    """Folders of photos by client; whose they are must be clear."""
    truth = dict(request.truth)
    if "" not in truth:
        folders = truth
    else:
        among = set(request.clients or ()) or _clients(inspection)
        if len(among) != 1:
            raise ConfigError(
                f"--truth {truth['']}: whose photos are these? The capture has "
                f"{len(among)} clients: write --truth CLIENT={truth['']}. Clients: "
                f"{_list_problems(inspection)}."
            )
        folders = {next(iter(among)): truth[""]}
    for client, path in folders.items():
        if client not in _clients(inspection) | _clients_of_problems(inspection, folders):
            raise ConfigError(
                f"--truth {printable(client)}={path}: there is no such client. Clients: "
                f"{_list_problems(inspection)}."
            )
    return {client: path.expanduser().resolve() for client, path in folders.items()}


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


def _scenarios(
    candidates: Sequence[Candidate],
    attacks: tuple[Choice, ...],
    defense: str,
    spec: ModelSpec,
    facts: Facts,
) -> tuple[tuple[Scenario, ...], tuple[RecordedTarget, ...]]:
    """A scenario a round, and apart from it one of clients whose photos are known.

    Rounds that have too few updates to say something alone make one scenario together.
    """
    granted = {str(fact) for fact in EXPLANATIONS} - {"labels", "statistics", "manipulation"}
    deny = tuple(sorted({fact.value for one in candidates for fact in one.lacking} & granted))
    groups: dict[tuple[bool, tuple[int, ...]], list[Candidate]] = {}
    for has_truth in (True, False):
        mine = [one for one in candidates if bool(one.truth) is has_truth]
        updates = Counter(one.seen.round for one in mine)
        few = tuple(round for round, count in updates.items() if count < ALONE)
        for one in mine:
            rounds = few if one.seen.round in few else (one.seen.round,)
            groups.setdefault((has_truth, rounds), []).append(one)
    both = len({has_truth for has_truth, _ in groups}) > 1
    scenarios, targets = [], []
    network = Choice(spec.factory, {}, label=safe_label(network_name(spec), "network"))
    method = Choice(
        RECORDED, {}, label=safe_label((facts.framework or "recorded").split()[0], RECORDED)
    )
    for (has_truth, rounds), them in groups.items():
        name = rounds_name(rounds) + ("-canary" if both and has_truth else "")
        sizes = [one.seen.batch_size for one in them if one.seen.batch_size]
        scenarios.append(
            Scenario(
                name=name,
                network=network,
                method=method,
                round=max(1, rounds[0]),
                batch_size=max(sizes, default=1),
                training=LocalTraining(facts.lr or 0.1, facts.local_steps or 1, batch_size=0),
                targets=len(them),
                threat_model="D",
                deny=deny,
                defenses=(Choice(RECORDED, {}, label=defense),),
                attacks=attacks,
            )
        )
        targets += [
            RecordedTarget(
                scenario=name,
                round=one.seen.round,
                file=one.members[0].path.name,
                client=printable(one.seen.client)[:200] or "unnamed",
                sha256=sha256(one.members[0].path),
                images=one.seen.batch_size or 0,
                truth=dict(one.truth),
            )
            for one in them
        ]
    return tuple(scenarios), tuple(targets)
