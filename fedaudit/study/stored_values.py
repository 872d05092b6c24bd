"""What a run folder's files may say: plain values of bounded size, and the types that they fill.

Whoever made the folder may have written anything into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedaudit.core.errors import RunFolderError
from fedaudit.core.source import SourceFacts

DEPTH = 32
LONGEST = 100_000
"""Characters of one text."""
LARGEST = 1e15
"""Magnitude of a number that is summed up somewhere."""
UNBOUNDED = frozenset({"objective", "history"})
"""Fields of numbers that may be infinite or none: an attack's objective may have diverged."""

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What `facts.json` says of where results come from; the defaults where there is none."""

    python: str = ""
    platform: str = ""
    cpu_count: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    terms: str = ""
    public: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    units: Mapping[str, int] = field(default_factory=dict)
    source: SourceFacts | None = None


def check_plain(value: object, depth: int = 0) -> None:
    """Refuse what no run writes.

    Raises:
        ValueError: Numbers that are none or too large, endless text, or deep nesting.
    """
    if depth > DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):  # the commonest first: a run has millions of values
        if len(value) > LONGEST:
            raise ValueError("a text in it is too long")
    elif isinstance(value, (int, float)):
        if not abs(value) <= LARGEST:  # NaN is not, either
            raise ValueError("a number in it is none, or too large")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_plain(inner, depth + 1)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_plain(name)
            if name not in UNBOUNDED:
                check_plain(inner, depth + 1)


def read_as(kind: type[T], value: object, path: Path) -> T:
    """A plain value as a dataclass.

    Raises:
        RunFolderError: It does not fit.
    """
    target: Any = kind
    try:
        check_plain(value)
        read: T = _adapter(target).validate_python(value)
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"]))
        raise _damage(path, f"{place[:100]}: {what['msg'][:200]}") from error
    except (ValueError, OverflowError) as error:
        raise _damage(path, str(error)) from error
    return read


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _damage(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{str(path)!r} is damaged: {what}. Restore it from a backup, or run the study again with "
        "another --output."
    )
