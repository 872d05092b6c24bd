"""`fedaudit view --bundle`: the pages over many runs as a folder that needs no server."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedaudit.core.errors import ConfigError, FedauditError
from fedaudit.core.measures import Evidence
from fedaudit.files.atomic import storage_errors, write_atomically
from fedaudit.reports.archive import list_runs
from fedaudit.reports.archive_page import difference_page, index_page, predecessors, run_id
from fedaudit.reports.build import page, results_of
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.study.session import open_report


def write_bundle(
    directory: Path, output: Path, evidence: Evidence, note: Callable[[str], None]
) -> int:
    """Render every readable run below a directory into a new folder; returns how many.

    Pages are rendered anew from the cells: no page that somebody left in a run folder is copied.

    Args:
        directory: Where the runs lie.
        output: A new or an empty folder: `index.html`, `runs/`, `diffs/`.
        evidence: What the pages may show of faces.
        note: Takes a sentence about each run.

    Raises:
        ConfigError: The folder holds something.
        StorageError: It cannot be written.
    """
    with storage_errors(output):
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(output.iterdir()):
        raise ConfigError(f"{str(output)!r} is not empty. Choose a new folder for --bundle.")
    runs, pages = list_runs(directory), dict[str, Results]()
    for number, run in enumerate(runs, 1):
        if run.state == "unreadable" or run.verdict is None:
            note(f"{number} of {len(runs)}: {run.name}: listed only: {run.why or 'no results'}")
            continue
        try:
            results, (folder, _, _) = results_of(run.path), open_report(run.path)
            html = page(folder, results, evidence if run.evidence == "full" else "redacted")
        except FedauditError as error:
            note(f"{number} of {len(runs)}: {run.name}: listed only: {error}")
            continue
        pages[run_id(run)] = results
        place = output / "runs" / run_id(run)
        with storage_errors(place):
            place.mkdir(mode=0o700, parents=True)
        write_atomically(place / "report.html", html)
        write_atomically(place / "results.json", canonical_bytes(results))
        note(f"{number} of {len(runs)}: {run.name}")
    entries = [run if run_id(run) in pages else replace(run, state="unreadable") for run in runs]
    for later, earlier in predecessors(entries).items():
        first = run_id(earlier)
        name = next(run.name for run in runs if run_id(run) == later)
        with storage_errors(output):
            (output / "diffs").mkdir(mode=0o700, exist_ok=True)
        diff = difference_page(pages[first], pages[later], (earlier.name, name))
        write_atomically(output / "diffs" / f"{first}-{later}.html", diff.encode())
    index = index_page(entries, directory.resolve().name, live=False)
    write_atomically(output / "index.html", index.encode())
    return len(pages)
