"""The exposure map on a terminal: what gives the face away, method by method."""

from fedaudit.cli.terminal_table import show
from fedaudit.core.measures import Rate
from fedaudit.reports.comparison import Exposure
from fedaudit.reports.results import Results

ABSENT = "—"


def show_exposures(results: Results) -> None:
    """Print the map of a study of several methods; of one method the report has it."""
    if len({e.method for e in results.exposures}) < 2:
        return
    lines: list[tuple[str, ...]] = []
    above: tuple[str, ...] = ()
    for e in results.exposures:
        scene = e.scenario if e.defense == "none" else f"{e.scenario}, {e.defense}"
        place = scene, e.artifact
        shown = place if above[:1] != place[:1] else ("", "" if above == place else e.artifact)
        prior = e.measurement.prior if e.measurement else None
        lines.append((*shown, e.attack or ABSENT, _rate(e.reid), _rate(prior), _result(e)))
        above = place
    show(("SCENARIO", "SENT", "ATTACK", "RE-IDENTIFIED", "PRIOR ONLY", "RESULT"), lines)


def _rate(rate: Rate | None) -> str:
    return ABSENT if rate is None else f"{rate.hits} of {rate.n}"


def _result(e: Exposure) -> str:
    if e.verdict == "NOT TESTED":
        return e.note or e.verdict
    return f"{e.verdict} ({e.note})" if e.note else e.verdict
