"""Whether a run folder is as its run left it, and its report is what follows from it.

Hashes show damage and careless edits. Whoever can write the folder can write new hashes, too: only
a root that came another way, on paper or signed, shows that nothing was replaced.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedaudit.core.errors import RunFolderError
from fedaudit.core.measures import Evidence
from fedaudit.core.version import VERSION
from fedaudit.files import regular_file
from fedaudit.reports.build import page, results_of
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.study import hash_list, removal_record
from fedaudit.study.hash_list import Differences
from fedaudit.study.session import open_report
from fedaudit.study.sign_off import faults_of

RESULTS, REPORT = "results.json", "report.html"


@dataclass(frozen=True)
class Verification:
    """What was checked of a run folder, and what differs.

    Attributes:
        root: SHA-256 of the list of hashes; "" where the folder has none.
        files: How many files the list names.
        differences: Files that were altered, are missing or were added since the run ended.
        damaged: Cells whose own hashes do not fit, with the reason.
        faults: What is wrong with what `fedaudit report` wrote, a sentence each.
        unchecked: What could not be checked, and why, a sentence each.
        removed: What was taken out of the folder on the record, a sentence a removal.
    """

    root: str
    files: int
    differences: Differences
    damaged: dict[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing differs from what the run left."""
        d = self.differences
        return not (d.altered or d.missing or d.added or self.damaged or self.faults)


def verify(
    path: Path,
    expected: str | None = None,
    public_key: Path | None = None,
    report: Path | None = None,
) -> Verification:
    """Hash every file of a run folder, and make its report again in memory; nothing is written.

    Args:
        path: The folder.
        expected: The root as it was told another way; compared with the folder's.
        public_key: Of who signed the folder off, in PEM, as it came another way.
        report: A page that may have left the folder; None is that in it.

    Raises:
        RunFolderError: Not a run folder, of another format, or so damaged that nothing follows.
    """
    _, manifest, stock = open_report(path)
    digests, root = hash_list.read(path), hash_list.root(path)
    faults, gaps = list(faults_of(path, public_key)), []
    faults += removal_record.faults_of(path, root)
    if expected is not None and expected.lower() != root:
        faults.append(f"The root is {root or 'missing'}, not {expected.lower()}.")
    if not digests:
        gaps.append(f"There is no {hash_list.FILE}: an edited cell may go unnoticed.")
    if manifest.fedaudit != VERSION:
        gaps.append(
            f"results.json and report.html were written by fedaudit {manifest.fedaudit}, and this "
            f"is {VERSION}, which may write others."
        )
    else:
        faults += _check_rendering(path, report or path / REPORT)
    return Verification(
        root=root,
        files=len(digests),
        differences=hash_list.compare(path, digests) if digests else Differences((), (), ()),
        damaged=dict(stock.damaged),
        faults=tuple(faults),
        unchecked=tuple(gaps),
        removed=tuple(one.sentence for one in removal_record.read_removals(path)),
    )


def _check_rendering(path: Path, report: Path) -> list[str]:
    """What is wrong with results.json and the page."""
    try:
        results = results_of(path)
    except RunFolderError as error:
        return [str(error)]
    wrong = "is not what follows from the folder's files"
    try:
        if regular_file.read_bytes(path / RESULTS) != canonical_bytes(results):
            fault = f"{RESULTS} {wrong}. `fedaudit report` writes it again."
            return [fault, f"{report.name} was not compared."]  # of other results it is another
        body, like = regular_file.read_bytes(report), 0
        for fresh in _pages(path, results):
            if body == fresh:
                return []
            like = max(like, _same_bytes(body, fresh))
    except FileNotFoundError as error:
        return [f"{Path(error.filename).name} is missing. `fedaudit report` writes it."]
    except RunFolderError as error:
        return [str(error)]
    line = body.count(b"\n", 0, like) + 1
    return [
        f"{report.name} {wrong}: byte {like + 1:,}, in line {line:,}, is the first that differs. "
        "`fedaudit report` writes it again."
    ]


def _same_bytes(one: bytes, other: bytes) -> int:
    """How many bytes are the same from the beginning on."""
    count = min(len(one), len(other))
    a, b = (np.frombuffer(body[:count], np.uint8) for body in (one, other))
    differing = np.flatnonzero(a != b)
    return int(differing[0]) if len(differing) else count


def _pages(path: Path, results: Results) -> Iterator[bytes]:
    """The page with everything that it may show of faces, one after the other: each takes time."""
    folder, manifest, _ = open_report(path)
    levels: tuple[Evidence, ...] = ("redacted", "none")
    full: tuple[Evidence, ...] = ("full",) if manifest.evidence == "full" else ()
    for evidence in (*full, *levels):
        yield page(folder, results, evidence)
