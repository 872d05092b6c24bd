"""Interim analyses of a run folder: what is decided, where attacks stop, and whether to go on.

Nothing is written.
"""

from pathlib import Path

from fedaudit.reports.exhibits import SEED
from fedaudit.reports.hopeless_run import hopeless
from fedaudit.reports.results import Settings, Stop
from fedaudit.reports.rows import rows
from fedaudit.reports.run_contents import read_galleries, refuse_damage
from fedaudit.reports.stopping import standing
from fedaudit.reports.trials import Trials
from fedaudit.study.inventory import Inventory
from fedaudit.study.manifest import Manifest
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_report
from fedaudit.study.sources import read_statements
from fedaudit.study.trial_check import check_trials


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
    with refuse_damage(path):
        return hopeless(manifest.study, Trials(stock.trials))


def stops_of(
    folder: RunFolder, manifest: Manifest, stock: Inventory
) -> tuple[tuple[Stop, ...], tuple[str, ...]]:
    """Where each defense stands, and keys of the jobs that are lacking; nothing is written."""
    study, trials = manifest.study, Trials(stock.trials)
    if not study.sequential:
        return (), (*stock.missing, *stock.damaged)
    galleries = read_galleries(folder, study)
    gallery = next((known for known in galleries.values() if known), None)
    with refuse_damage(folder.path):
        check_trials(study, trials.all)
        settings = Settings(study.reid_limit, 0.95, study.fmr, SEED)
        source, units = read_statements(study, folder)[0], folder.facts().units
        table = rows(study, trials, {}, settings, gallery, source, units)
        return standing(study, stock, trials, table)[1:]
