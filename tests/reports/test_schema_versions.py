"""Fields of results.json and why.json do not change under a version that people have read.

`python tests/reports/test_schema_versions.py` writes the fields of a new version down.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from fedaudit.reports import explanation, results

KNOWN = Path(__file__).parent / "schema_versions.json"
KINDS = {
    "results.json": (results.Results, results.SCHEMA_VERSION, "reports/results.py"),
    "why.json": (explanation.Explanation, explanation.SCHEMA_VERSION, "reports/explanation.py"),
}


def shape(kind: type) -> dict[str, dict[str, str]]:
    """Fields and their types of a dataclass and of all within it, by name of the dataclass."""
    found: dict[str, dict[str, str]] = {}

    def walk(hint: Any) -> None:
        if isinstance(hint, type) and is_dataclass(hint) and hint.__name__ not in found:
            hints = get_type_hints(hint)
            found[hint.__name__] = {f.name: _plain(hints[f.name]) for f in fields(hint)}
            for one in hints.values():
                walk(one)
        for part in get_args(hint):
            walk(part)

    walk(kind)
    return found


def _plain(hint: Any) -> str:
    """A type without the module that it stands in: a file that moves changes no field."""
    named = hint.__name__ if isinstance(hint, type) and not get_args(hint) else repr(hint)
    return re.sub(r"[\w.]+\.(?=[A-Za-z])", "", named)


def digest(kind: type) -> str:
    return sha256(json.dumps(shape(kind), sort_keys=True).encode()).hexdigest()[:16]


def complaint(known: Mapping[str, str], version: str, now: str, where: str) -> str:
    """What to do about fields that are not those of their version; "" where they are."""
    if known.get(version) == now:
        return ""
    if version in known:
        return (
            f"Fields changed under schema version {version}. Raise SCHEMA_VERSION in {where}, say "
            "in CHANGELOG.md what changed, and run: python tests/reports/test_schema_versions.py"
        )
    return (
        f"Nobody wrote down the fields of schema version {version}. Run: "
        "python tests/reports/test_schema_versions.py"
    )


@pytest.mark.parametrize("name", KINDS)
def test_fields_are_those_that_were_written_down_with_their_version(name: str) -> None:
    kind, version, where = KINDS[name]
    known = json.loads(KNOWN.read_text("utf-8"))[name]
    problem = complaint(known, version, digest(kind), where)
    assert not problem, problem


@dataclass(frozen=True)
class _Inner:
    value: float


@dataclass(frozen=True)
class _Outer:
    parts: tuple[_Inner, ...]


def test_a_field_deep_inside_makes_another_digest_which_needs_another_version() -> None:
    inner = make_dataclass("_Inner", [("value", float), ("more", str)], frozen=True)
    outer = make_dataclass("_Outer", [("parts", tuple[inner, ...])], frozen=True)  # type: ignore[valid-type]
    known = {"1": digest(_Outer)}
    assert not complaint(known, "1", digest(_Outer), "x.py")
    assert "Raise SCHEMA_VERSION in x.py" in complaint(known, "1", digest(outer), "x.py")
    assert "wrote down" in complaint(known, "2", digest(outer), "x.py")


if __name__ == "__main__":
    table = json.loads(KNOWN.read_text("utf-8")) if KNOWN.exists() else {}
    for name, (kind, version, where) in KINDS.items():
        known = table.setdefault(name, {})
        known.setdefault(version, digest(kind))
        if problem := complaint(known, version, digest(kind), where):
            raise SystemExit(problem)
    KNOWN.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
