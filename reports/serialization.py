"""The bytes of `results.json` and `why.json`: writing and reading them, and their JSON schemas."""

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from fedaudit.reports.explanation import Explanation
from fedaudit.reports.results import Results
from fedaudit.reports.this_run import put_back, schema_apart, set_apart


@cache
def adapter(kind: Any = Results) -> TypeAdapter[Any]:
    """Validates and serializes `Results`, or an `Explanation`."""
    return TypeAdapter(kind)


def schema(kind: Any = Results) -> dict[str, Any]:
    """JSON schema of `results.json`, or of `why.json`."""
    plain = adapter(kind).json_schema()
    return schema_apart(plain) if kind is Results else plain


def read_results(content: bytes) -> Results:
    """The results that a `results.json` holds.

    Raises:
        ValueError: It holds none, or of another schema.
        LookupError: Its parts do not fit together.
    """
    results: Results = adapter().validate_python(put_back(json.loads(content)))
    return results


def canonical_bytes(results: Results | Explanation) -> bytes:
    """The bytes of `results.json` or `why.json`: sorted keys, ASCII, one trailing newline.

    The run folder writes them and every page prints their SHA-256, so both must come from here.
    """
    kind: Any = type(results)
    data = adapter(kind).dump_python(results, mode="json")
    data = set_apart(data) if isinstance(results, Results) else data
    return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
