"""From a run folder to `results.json` and `report.html`; a pure function of the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.measures import Evidence, Utility
from fedaudit.core.scenario import Federation, Scenario, Study
from fedaudit.core.source import SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.federation.utility import pool_trainings
from fedaudit.files import regular_file
from fedaudit.files.asset_table import ASSETS
from fedaudit.files.atomic import write_atomically
from fedaudit.reports import recorded
from fedaudit.reports.ceilings import ceilings
from fedaudit.reports.comparison import Row
from fedaudit.reports.contrasts import contrasts
from fedaudit.reports.controls import any_failed, controls
from fedaudit.reports.coverage import coverage
from fedaudit.reports.defense_lines import defense_lines
from fedaudit.reports.evidence_matrix import evidence_matrices
from fedaudit.reports.exhibits import SEED, exhibits, points
from fedaudit.reports.explanation import FILE as EXPLANATION
from fedaudit.reports.explanation import Explanation
from fedaudit.reports.exposure import exposures
from fedaudit.reports.findings import findings
from fedaudit.reports.headline import headline
from fedaudit.reports.hopeless_run import hopeless
from fedaudit.reports.html import render
from fedaudit.reports.image_words import in_words_of_images
from fedaudit.reports.limitations import assets_used, limits_of_run
from fedaudit.reports.membership_lines import (
    membership_controls,
    membership_coverage,
    membership_findings,
    memberships,
    property_coverage,
)
from fedaudit.reports.pictures import Picture
from fedaudit.reports.plain_names import in_plain_words
from fedaudit.reports.results import (
    SCHEMA_VERSION,
    Ledger,
    Provenance,
    Results,
    Settings,
    Stop,
    canonical_bytes,
)
from fedaudit.reports.rows import invalidate, rows
from fedaudit.reports.shown_lines import privacy_findings, shown_lines
from fedaudit.reports.stopping import limits_of_stops, standing, with_stop
from fedaudit.reports.this_run import ROOT
from fedaudit.reports.trials import Trials
from fedaudit.scoring.identity import Gallery, gallery_of_packed
from fedaudit.scoring.metrics import declarations
from fedaudit.study import hash_list
from fedaudit.study.calibration import read_numbers
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import TrainJob, central_jobs, gallery_name, utility_jobs
from fedaudit.study.manifest import Manifest
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import MODELS, RunFolder
from fedaudit.study.session import open_report
from fedaudit.study.sign_off import read_sign_off
from fedaudit.study.sources import read_statements
from fedaudit.study.stored_values import read_as
from fedaudit.study.trial_check import check_trials


def build_report(path: Path, evidence: Evidence) -> Results:
    """Summarize a run, write `results.json` and `report.html` into it, and return the summary.

    Args:
        path: The run folder, finished or not: what is missing is "not tested".
        evidence: "full" shows faces where the run kept them.

    Raises:
        RunFolderError: Not a run folder, or one that cannot be read.
        StorageError: The folder cannot be written.
    """
    folder, results = _open(path)
    write_atomically(path / "results.json", canonical_bytes(results))
    write_atomically(path / "report.html", page(folder, results, evidence))
    return results


def page(folder: RunFolder, results: Results, evidence: Evidence) -> bytes:
    """The bytes of `report.html`."""
    absent = _absence(folder)
    level = "redacted" if absent and evidence == "full" else evidence
    with _fitting(folder.path):
        pictures = dict(_pictures(folder, results)) if level == "full" else None
        return render(results, pictures, level, absent).encode()


def results_of(path: Path) -> Results:
    """The summary of a run folder; nothing is written. It raises as `build_report` does."""
    return _open(path)[1]


def _open(path: Path) -> tuple[RunFolder, Results]:
    folder, manifest, stock = open_report(path)
    trials = Trials(stock.trials)
    with _fitting(path):
        check_trials(manifest.study, trials.all)
        results = summarize(folder, manifest, stock, trials)
        canonical_bytes(results)  # refuses numbers that are none
    return folder, results


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Each file may be well-formed, with hashes that fit, and yet no run writes them together."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged: what its files say does not fit together "
            f"({type(error).__name__}: {str(error)[:200]}). Restore it from a backup, or run the "
            "study again with another --output. If nobody changed it, it is a fault of fedaudit: "
            "FEDAUDIT_DEBUG=1 shows where."
        ) from error


def summarize(folder: RunFolder, manifest: Manifest, stock: Inventory, trials: Trials) -> Results:
    """Everything a report shows, as data."""
    study = manifest.study
    galleries = _galleries(folder, study)
    gallery = next((tops for tops in galleries.values() if tops), None)
    settings = Settings(
        reid_limit=study.reid_limit,
        confidence=0.95,
        fmr=gallery.fmr if gallery else study.fmr,
        exhibit_seed=SEED,
    )
    source, limitations = read_statements(study, folder)
    worth = dict(_utilities(folder, study, stock))
    units = folder.facts().units
    table, stopped, lacking = standing(
        study, stock, trials, rows(study, trials, worth, settings, gallery, source, units)
    )
    tops = ceilings(study, galleries)
    checks = controls(study, trials, table, gallery, source, tops)
    if any_failed(checks):
        table = invalidate(table, settings)
    members, epsilons = memberships(folder, study, stock), shown_lines(folder, study, stock)
    cells = exposures(study, trials, table, source)
    verdict, place = headline(table, settings, study.audited, checks, _not_run(study, table))
    verdict = with_stop(verdict, None if place is None else table[place], stopped)
    lines = defense_lines(study, trials, table)
    thresholds = {name: tops.threshold if tops else None for name, tops in galleries.items()}
    results = Results(
        schema_version=SCHEMA_VERSION,
        study=study.name,
        description=study.description,
        underpowered=study.underpowered,
        release_context=study.release_context,
        headline=verdict,
        headline_row=place,
        deployed=study.audited,
        settings=settings,
        metrics=declarations(
            {name for t in trials.all for image in t.images for name in image.metrics} or None
        ),
        rows=table,
        defenses=lines,
        exposures=cells,
        contrasts=contrasts(study, trials),
        ceilings=tops,
        other_ceilings=tuple(
            line
            for judge in study.judges[1:]
            for line in ceilings(study, _galleries(folder, study, judge.label), judge.label)
        ),
        controls=(*checks, *membership_controls(members)),
        coverage=coverage(
            manifest.categories,
            table,
            (membership_coverage(members), property_coverage(members)),
        ),
        findings=findings(
            table,
            cells,
            (
                *recorded.findings_of(study, source.protections, table),
                *membership_findings(study, members),
                *privacy_findings(study, epsilons),
            ),
        ),
        membership=members,
        shown_epsilon=epsilons,
        exhibits=exhibits(study, trials, table, thresholds),
        matrices=evidence_matrices(lines, trials, thresholds),
        points=points(trials),
        ledger=tuple(_ledger(scenario, study, source) for scenario in study.scenarios),
        provenance=_provenance(folder, manifest),
        limitations=(
            *limitations,
            *limits_of_stops(stopped),
            *limits_of_run(folder, study, stock, lacking, trials, table, gallery, units),
        ),
        sign_off=read_sign_off(folder.path),
        explanation=_explanation(folder),
        units=units,
        stops=stopped,
    )
    return in_plain_words(in_words_of_images(results) if study.of_pictures else results)


def decided(path: Path) -> dict[tuple[str, str], str]:
    """Decided defenses of a run that adds targets until they are, and where they stopped, in words.

    By scenario and label. Nothing is written.

    Raises:
        RunFolderError: As `build_report`.
    """
    stopped, _ = stops_of(*open_report(path))
    return {(stop.scenario, stop.defense): stop.words for stop in stopped if stop.decided}


def reason_to_stop(path: Path) -> str:
    """As `hopeless_run.hopeless`, of a run folder; nothing is written.

    Raises:
        RunFolderError: As `build_report`.
    """
    _, manifest, stock = open_report(path)
    with _fitting(path):
        return hopeless(manifest.study, Trials(stock.trials))


def stops_of(
    folder: RunFolder, manifest: Manifest, stock: Inventory
) -> tuple[tuple[Stop, ...], tuple[str, ...]]:
    """Where each defense stands, and keys of the jobs that are lacking; nothing is written."""
    study, trials = manifest.study, Trials(stock.trials)
    if not study.sequential:
        return (), (*stock.missing, *stock.damaged)
    galleries = _galleries(folder, study)
    gallery = next((known for known in galleries.values() if known), None)
    with _fitting(folder.path):
        check_trials(study, trials.all)
        settings = Settings(study.reid_limit, 0.95, study.fmr, SEED)
        source, units = read_statements(study, folder)[0], folder.facts().units
        table = rows(study, trials, {}, settings, gallery, source, units)
        return standing(study, stock, trials, table)[1:]


def _not_run(study: Study, table: tuple[Row, ...]) -> tuple[str, ...]:
    """Deployed lines of the study that have no result."""
    there = {(row.scenario, row.defense, row.attack) for row in table}
    lines = (
        (scenario.name, label, attack.label)
        for scenario in study.scenarios
        for label in study.audited
        if label in {defense.label for defense in scenario.defenses}
        for attack in scenario.attacks
    )
    return tuple(f"{s}, {d}, {a}" for s, d, a in lines if (s, d, a) not in there)


def _explanation(folder: RunFolder) -> Explanation | None:
    """What `fedaudit why` left in the folder; None where it was not asked."""
    path = folder.path / EXPLANATION
    try:
        return read_as(Explanation, regular_file.read_json(path), path)
    except FileNotFoundError:
        return None
    except RunFolderError as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged. `fedaudit why` with the same study writes it again; a "
            "report without it: delete the file."
        ) from error


def _galleries(folder: RunFolder, study: Study, judge: str = "") -> dict[str, Gallery | None]:
    """By scenario, the gallery of the first judge or of the one that is named."""
    return {
        scenario.name: _gallery(folder, study, study.federation_of(scenario), judge)
        for scenario in study.scenarios
    }


def _gallery(folder: RunFolder, study: Study, federation: Federation, judge: str) -> Gallery | None:
    name = gallery_name(study, federation, judge)
    pack = folder.shared_tensors(name)
    if pack is None and (folder.recipients or f"{name}.safetensors" in folder.removed):
        return read_numbers(folder.path, name)
    return None if pack is None else gallery_of_packed(pack, fmr=study.fmr)


def _utilities(
    folder: RunFolder, study: Study, stock: Inventory
) -> Iterator[tuple[tuple[str, str], Utility]]:
    keys = set(stock.done)

    def of(jobs: tuple[TrainJob, ...]) -> list[Utility]:
        trainings = [_utility(folder, job.key) for job in jobs if job.key in keys]
        return [utility for utility in trainings if utility]

    for scenario in study.scenarios:
        central = of(central_jobs(study, scenario))
        for defense in scenario.defenses:
            if trainings := of(utility_jobs(study, scenario, defense)):
                yield (scenario.name, defense.label), pool_trainings(trainings, central)


def _utility(folder: RunFolder, key: str) -> Utility | None:
    """Utility that a training job measured; None where it was not measured."""
    value = folder.measured(key).get("utility")
    file = folder.files(MODELS, key)[0]
    return None if value is None else read_as(Utility, value, file)


def _pictures(folder: RunFolder, results: Results) -> Iterator[tuple[tuple[str, int], Picture]]:
    """What the gallery and the verdict card show."""
    places = {(e.cell, e.image) for e in results.exhibits}
    places |= {(e.prior_cell, e.image) for e in results.exhibits if e.prior_cell}
    rows = (row for matrix in results.matrices for row in matrix.rows)
    places |= {(c.cell, c.image) for row in rows for c in row.cells if c}
    worst = (row.measurement.worst for row in results.rows if row.measurement)
    places |= {(place.cell, place.image) for place in worst if place}
    for key, image in sorted(places):
        trial = folder.trial(key)
        photos = folder.evidence(trial.cell.scenario, trial.cell.target) or {}
        name = f"portrait/{trial.images[image].person}" if trial.of == "people" else "images"
        original = photos.get(name)
        tensors = folder.tensors(key)
        if original is not None and trial.of == "photos":
            index = tensors.get("originals")  # of a client's many photos, those that are meant
            original = original[image if index is None else int(index[image])]
        yield (key, image), Picture(original, tensors["images"][image])


def _ledger(scenario: Scenario, study: Study, source: SourceFacts) -> Ledger:
    model = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    settings = study.federation_of(scenario)
    everybody = settings.training
    training = (
        f"audited update: {scenario.training.steps} local step(s), batch "
        f"{scenario.batch_size}, lr {scenario.training.lr:g}"
    )
    state = "fresh global model (round 1): nothing has been learned yet"
    if scenario.round > 1:
        state = (
            f"trained global model: round {scenario.round}, after {scenario.round - 1} rounds of "
            f"{settings.clients} clients, {everybody.steps} local steps of batch "
            f"{everybody.batch_size} at lr {everybody.lr:g}, each defense with its own training"
        )
    return Ledger(
        scenario=scenario.name,
        threat_model=f"{model.name}: {model.summary}",
        granted=tuple(sorted(fact.value for fact in model.grants)),
        denied=tuple(sorted(fact.value for fact in Knowledge if fact not in model.grants)),
        training=source.training or training,
        model_state=source.model_states.get(scenario.name, state),
    )


def _provenance(folder: RunFolder, manifest: Manifest) -> Provenance:
    facts = folder.facts()
    sessions = [e.get("seconds") for e in folder.events() if e.get("event") == "session"]
    return Provenance(
        fedaudit=manifest.fedaudit,
        command=manifest.command,
        started=manifest.started,
        seconds=float(sum(s for s in sessions if isinstance(s, int | float))),
        python=facts.python,
        platform=facts.platform,
        cpu_count=facts.cpu_count,
        versions=facts.versions,
        git_commit=facts.git_commit,
        seeds=manifest.study.seeds,
        data=manifest.study.data.name,
        data_terms=facts.terms,
        asset_terms={name: ASSETS[name].terms for name in assets_used(facts)},
        hashes={"study": manifest.digest, **facts.hashes, **_root(folder)},
    )


def _absence(folder: RunFolder) -> str:
    """Why a run has no pictures to show; "" where it has."""
    text = ". ".join(one.sentence for one in read_removals(folder.path))
    if not text and folder.recipients and folder.identity is None:
        text = (
            f"pictures are sealed for {', '.join(folder.recipients)}: `fedaudit report RUN "
            "--evidence full --identity KEY --output PAGE.html` shows them to whoever has the key"
        )
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _root(folder: RunFolder) -> dict[str, str]:
    digest = hash_list.root(folder.path)
    return {ROOT: digest} if digest else {}
