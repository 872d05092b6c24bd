"""Many runs below a directory: what each says of itself, read without computing anything again.

Verdicts are as `results.json` states them. Whether they follow from the folder's cells is what
`fedaudit verify` looks at, a run at a time.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedaudit.core.errors import FedauditError
from fedaudit.core.measures import Evidence, Rate
from fedaudit.core.printable import first_few
from fedaudit.files import regular_file
from fedaudit.reports.comparison import Severity, VerdictKind
from fedaudit.reports.results import Stop
from fedaudit.reports.stopping import beyond
from fedaudit.study import hash_list, manifest
from fedaudit.study.manifest import Manifest
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import RunFolder

State = Literal["finished", "unfinished", "altered", "unreadable"]
DEPTH, MOST = 4, 10_000
"""How many folders deep runs are looked for, and how many folders are looked into."""


@dataclass(frozen=True)
class RunSummary:
    """One run of a list; None and "" where it is not known.

    Attributes:
        name: Its folder, from the directory that was listed.
        path: Its folder.
        study: Name of the study.
        started: ISO time when it began, UTC.
        verdict: What results.json states; None where there is none.
        sentence: The verdict in words.
        severity: Of the verdict.
        deployed: Labels of the defenses that the verdict judges; () of a comparison.
        limit: T of the verdict.
        reid: Re-identification of the row that the verdict speaks of.
        people: Independent people or updates of that row, or of the row that has most.
        size: Bytes on disk.
        state: "altered" where files are not as the run listed them, "unreadable" where another
            build wrote the folder, or it is damaged.
        why: Which files, jobs or error the state is due to.
        evidence: What the run may keep of the originals.
        sealed: Public keys that its pictures are encrypted for.
        removed: How its evidence was removed, a sentence a removal; () where it was not.
        explained: Its report says why it leaks (`fedaudit why`).
        build: Version that wrote it, and the commit where it is known.
    """

    name: str
    path: Path
    study: str = ""
    started: str = ""
    verdict: VerdictKind | None = None
    sentence: str = ""
    severity: Severity | None = None
    deployed: tuple[str, ...] = ()
    limit: float = 0.05
    reid: Rate | None = None
    people: int | None = None
    size: int = 0
    state: State = "unreadable"
    why: str = ""
    evidence: Evidence | None = None
    sealed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    explained: bool = False
    build: str = ""


class _Part(BaseModel):
    """What is read of a results.json, of whatever schema; the rest is not looked at."""

    model_config = ConfigDict(extra="ignore")


class _Verdict(_Part):
    kind: VerdictKind
    sentence: str
    severity: Severity


class _Measurement(_Part):
    reid: Rate | None = None


class _Row(_Part):
    measurement: _Measurement | None = None


class _Provenance(_Part):
    fedaudit: str = ""
    git_commit: str | None = None


class _Settings(_Part):
    reid_limit: float = 0.05


class _Stated(_Part):
    study: str = ""
    headline: _Verdict
    headline_row: int | None = None
    deployed: tuple[str, ...] = ()
    rows: tuple[_Row, ...] = ()
    provenance: _Provenance = _Provenance()
    settings: _Settings = _Settings()
    explanation: Any = None
    stops: tuple[Stop, ...] = ()
    this_run: Mapping[str, Any] = {}

    @property
    def rates(self) -> tuple[Rate | None, ...]:
        return tuple(row.measurement.reid if row.measurement else None for row in self.rows)


def find_runs(directory: Path) -> Iterator[Path]:
    """Run folders in a directory and below it, by name; links are not followed.

    Args:
        directory: A run folder, or a folder of them, up to `DEPTH` folders deep.
    """
    waiting, seen = [(directory, 0)], 0
    while waiting and seen < MOST:
        folder, depth = waiting.pop()
        seen += 1
        try:
            inside = sorted((e for e in os.scandir(folder) if _is_folder(e)), key=lambda e: e.name)
            is_run = (folder / manifest.FILE).is_file()
        except OSError:  # may not be looked into
            continue
        if is_run:
            yield folder
        elif depth < DEPTH:
            waiting += [(Path(entry), depth + 1) for entry in reversed(inside)]


def list_runs(directory: Path) -> tuple[RunSummary, ...]:
    """Every run below a directory, the latest first."""
    runs = [summary(path, _name(path, directory)) for path in find_runs(directory)]
    return tuple(sorted(runs, key=lambda run: run.started, reverse=True))


def summary(path: Path, name: str = "") -> RunSummary:
    """What a run folder says of itself; its files are hashed, and nothing is written.

    Args:
        path: The folder.
        name: How to call it; its own name by default.
    """
    statement = _statement(path)
    rates = statement.rates if statement else ()
    place = statement.headline_row if statement else None
    reid = rates[place] if place is not None and 0 <= place < len(rates) else None
    counts = [rate.n for rate in rates if rate]
    source = statement.provenance if statement else _Provenance()
    entry = RunSummary(
        name=name or path.name,
        path=path,
        study=statement.study if statement else "",
        started=_text(statement.this_run.get("/provenance/started")) if statement else "",
        verdict=statement.headline.kind if statement else None,
        sentence=statement.headline.sentence if statement else "",
        severity=statement.headline.severity if statement else None,
        deployed=statement.deployed if statement else (),
        limit=statement.settings.reid_limit if statement else 0.05,
        reid=reid,
        explained=bool(statement and statement.explanation),
        people=reid.n if reid else max(counts, default=None),
        size=size_of(path),
        build=" ".join(filter(None, (source.fedaudit, (source.git_commit or "")[:12]))),
    )
    try:
        read = manifest.read(path)
        state, why = _state(path, read, statement.stops if statement else ())
        removals = read_removals(path)
    except FedauditError as error:
        return replace(entry, why=str(error).replace(str(path), entry.name))
    return replace(
        entry,
        study=read.study.name,
        started=read.started,
        deployed=read.study.audited,
        state=state,
        why=why,
        evidence=read.evidence,
        sealed=read.study.encrypt_evidence,
        removed=tuple(one.sentence for one in removals),
        build=entry.build or read.fedaudit,
    )


def size_of(path: Path) -> int:
    """Bytes of the files in a folder and below it; links count as nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _state(path: Path, read: Manifest, stops: tuple[Stop, ...]) -> tuple[State, str]:
    differences = hash_list.compare(path, hash_list.read(path)) if hash_list.root(path) else None
    if differences and (names := (*differences.altered, *differences.missing)):
        return "altered", first_few(names, 1)
    folder = RunFolder(path)
    without = [job.key for job in read.jobs if not folder.files(job.kind, job.key)[0].exists()]
    undone = len(without) - len(beyond([stop for stop in stops if stop.decided], without))
    if undone or differences is None:
        return "unfinished", f"{undone} of {len(read.jobs)} jobs have no result"
    return "finished", ""


def _statement(path: Path) -> _Stated | None:
    try:
        return _adapter().validate_json(regular_file.read_bytes(path / "results.json"))
    except (OSError, FedauditError, ValidationError, RecursionError):
        return None


@cache
def _adapter() -> TypeAdapter[_Stated]:
    return TypeAdapter(_Stated)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")


def _name(path: Path, directory: Path) -> str:
    return path.name if path == directory else path.relative_to(directory).as_posix()


def plain(run: RunSummary) -> Mapping[str, object]:
    """A summary as JSON shows it."""
    return asdict(run) | {"path": str(run.path)}
