"""What a run cannot say: reach of its data, terms, mixed code, jobs that are missing."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from fedaudit.core.scenario import Study
from fedaudit.files.asset_table import ASSETS
from fedaudit.reports import recorded
from fedaudit.reports.comparison import Row
from fedaudit.reports.effort import unused
from fedaudit.reports.text import NBSP, percent
from fedaudit.reports.trials import Trials
from fedaudit.scoring.identity import Gallery
from fedaudit.stats.intervals import clopper_pearson
from fedaudit.study import hash_list
from fedaudit.study.inventory import Inventory
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.stored_values import Facts

ALIKE = "look like one person under two names"
UNRUN = "of the study were not run"


def limits_of_run(
    folder: RunFolder,
    study: Study,
    stock: Inventory,
    lacking: Collection[str],
    trials: Trials,
    table: Sequence[Row],
    gallery: Gallery | None,
    units: Mapping[str, int],
) -> Iterator[str]:
    """Limitations that this run brings, beside those of its source; `units` as in `Facts`.

    `lacking` are keys of jobs that left nothing to rely on, and should have.
    """
    facts = folder.facts()
    if any(row.measurement and row.measurement.searched for row in table):
        yield recorded.SEARCHED
    yield from facts.notes
    yield from unused(trials)
    yield from _alike(None if study.of_pictures else gallery)
    yield from _noncommercial(facts)
    yield from _reach(units)
    yield from _origins(stock.origins)
    yield from _gaps(folder, stock, lacking)


def assets_used(facts: Facts) -> list[str]:
    """Fetched files that had a part in the results; what is known of no more is left out."""
    assets = (name.removeprefix("asset ") for name in facts.hashes if name.startswith("asset "))
    return sorted(name for name in assets if name in ASSETS)


def _alike(gallery: Gallery | None) -> Iterator[str]:
    """Pairs of people in the gallery who may be one person, which makes rates wrong."""
    for one, other in gallery.alike if gallery else ():
        yield (
            f"{one} and {other} {ALIKE} to the judge. If they are, "
            "the false match rate is calibrated on pairs of one person, and leaks are missed: put "
            "their photos together, and run the study again."
        )


def _noncommercial(facts: Facts) -> Iterator[str]:
    """What was used under terms that bar commercial use."""
    for name in assets_used(facts):
        if not ASSETS[name].commercial:
            yield (
                f"{name} was used, because an attack, a method or the data set asks for it: "
                f"{ASSETS[name].terms}. Results that rest on it fall under these terms; no default "
                "of fedaudit uses it."
            )


def _reach(units: Mapping[str, int]) -> Iterator[str]:
    """The smallest limit that the data can settle, whatever is run on them."""
    scenes: dict[int, list[str]] = {}
    for scenario, most in units.items():
        scenes.setdefault(most, []).append(scenario)
    for most, names in scenes.items():
        least = percent(clopper_pearson(0, most)[1]).replace(NBSP, " ")
        yield (
            f"{', '.join(names)}: the data give {most} independent people or updates at most, "
            f"so that no rate below {least} can be excluded, whatever is run on them."
        )


def _origins(origins: Mapping[str, int]) -> Iterator[str]:
    """Whether different code computed the cells, so that they may not be comparable."""
    counts: Counter[str] = Counter()
    for origin, number in origins.items():
        counts[origin[:12] or "unknown code"] += number
    if len(counts) > 1:
        each = ", ".join(f"{n} by {origin}" for origin, n in counts.most_common())
        yield (
            f"Different code computed the cells ({each}), which may not be comparable. "
            "`fedaudit run` with another --output computes all of them with one."
        )


def _gaps(folder: RunFolder, stock: Inventory, lacking: Collection[str]) -> Iterator[str]:
    for name in hash_list.altered_beside_cells(folder.path):
        yield f"Altered or deleted since the run wrote it: {name}. Nothing here can be relied on."
    if count := len({*stock.missing} & {*lacking}):
        tried = " or failed" if stock.failed.keys() & {*lacking} else ""
        yield f"{count} job(s) {UNRUN}{tried}: their cells are not tested."
    for key, reason in stock.damaged.items():
        yield f"Not tested, because its file is damaged: {key} ({reason})"
    for key, message in stock.failed.items():
        yield f"Failed: {key} ({message})"
