"""From a run folder to `results.json` and `report.html`; a pure function of the folder."""

from pathlib import Path

from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
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
from fedaudit.reports.exposure import exposures
from fedaudit.reports.findings import findings
from fedaudit.reports.headline import headline
from fedaudit.reports.hopeless_run import hopeless
from fedaudit.reports.html import render
from fedaudit.reports.image_words import in_words_of_images
from fedaudit.reports.kept_pictures import read_pictures, why_absent
from fedaudit.reports.ledger import ledger_of
from fedaudit.reports.limitations import limits_of_run
from fedaudit.reports.membership_lines import (
    membership_controls,
    membership_coverage,
    membership_findings,
    memberships,
    property_coverage,
)
from fedaudit.reports.plain_names import in_plain_words
from fedaudit.reports.results import SCHEMA_VERSION, Results, Settings
from fedaudit.reports.rows import invalidate, rows
from fedaudit.reports.run_contents import (
    read_explanation,
    read_galleries,
    read_utilities,
    refuse_damage,
)
from fedaudit.reports.run_provenance import provenance_of
from fedaudit.reports.same_training import trained_alike
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.reports.shown_lines import privacy_findings, shown_lines
from fedaudit.reports.stopping import limits_of_stops, standing, with_stop
from fedaudit.reports.trials import Trials
from fedaudit.scoring.metrics import declarations
from fedaudit.study.inventory import Inventory
from fedaudit.study.manifest import Manifest
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_report
from fedaudit.study.sign_off import read_sign_off
from fedaudit.study.sources import read_statements
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
    absent = why_absent(folder)
    level = "redacted" if absent and evidence == "full" else evidence
    with refuse_damage(folder.path):
        pictures = dict(read_pictures(folder, results)) if level == "full" else None
        return render(results, pictures, level, absent).encode()


def results_of(path: Path) -> Results:
    """The summary of a run folder; nothing is written. It raises as `build_report` does."""
    return _open(path)[1]


def _open(path: Path) -> tuple[RunFolder, Results]:
    folder, manifest, stock = open_report(path)
    trials = Trials(stock.trials)
    with refuse_damage(path):
        check_trials(manifest.study, trials.all)
        results = summarize(folder, manifest, stock, trials)
        canonical_bytes(results)  # refuses numbers that are none
    return folder, results


def summarize(folder: RunFolder, manifest: Manifest, stock: Inventory, trials: Trials) -> Results:
    """Everything a report shows, as data."""
    study = manifest.study
    galleries = read_galleries(folder, study)
    gallery = next((tops for tops in galleries.values() if tops), None)
    settings = Settings(
        reid_limit=study.reid_limit,
        confidence=0.95,
        fmr=gallery.fmr if gallery else study.fmr,
        exhibit_seed=SEED,
    )
    source, limitations = read_statements(study, folder)
    alike = trained_alike(folder, study, stock)
    utilities = read_utilities(folder, study, stock)
    worth = {place: utility for place, utility in utilities if place not in alike}
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
    why = hopeless(study, trials) if study.recording and not table else ""
    verdict, place = headline(table, settings, study.audited, checks, _not_run(study, table), why)
    verdict = with_stop(verdict, None if place is None else table[place], stopped)
    lines = defense_lines(study, trials, table, alike)
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
            for line in ceilings(study, read_galleries(folder, study, judge.label), judge.label)
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
        ledger=tuple(
            ledger_of(
                scenario, study, source, [u for (s, _), u in worth.items() if s == scenario.name]
            )
            for scenario in study.scenarios
        ),
        provenance=provenance_of(folder, manifest),
        limitations=(
            *limitations,
            *limits_of_stops(stopped),
            *limits_of_run(folder, study, stock, lacking, trials, table, gallery, units),
        ),
        sign_off=read_sign_off(folder.path),
        explanation=read_explanation(folder),
        units=units,
        stops=stopped,
    )
    return in_plain_words(in_words_of_images(results) if study.of_pictures else results)


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
