"""The part of `results.json` that two runs of one study differ in: times, the command, the root.

Everything else of the file is equal wherever the cells were computed, on one machine or on a
cluster. So what depends on the moment stands apart, under the JSON pointer (RFC 6901) of the place
where it belongs: `"this_run": {"/rows/0/measurement/seconds": 1.5}`.
"""

from collections.abc import Mapping
from typing import Any

KEY = "this_run"
ROOT = "run folder (SHA256SUMS)"
"""Name of the root of the folder's hashes among those of `Provenance`: its cells hold times."""
MOMENT = frozenset(
    {
        "seconds", "started", "command", "step_seconds", "plain_step_seconds", "seconds_first",
        "seconds_second", ROOT,
    }
)  # fmt: skip
"""Names of the fields that depend on when and by which command a run was made."""


def set_apart(data: Mapping[str, Any]) -> dict[str, Any]:
    """Results as plain data, with what depends on the moment in a part of its own.

    >>> set_apart({"rows": [{"seconds": 1.5, "of": "people"}]})
    {'rows': [{'of': 'people'}], 'this_run': {'/rows/0/seconds': 1.5}}
    """
    moment: dict[str, Any] = {}

    def rest(value: Any, place: str) -> Any:
        if isinstance(value, list):
            return [rest(one, f"{place}/{k}") for k, one in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        moment.update({f"{place}/{key}": value[key] for key in value if key in MOMENT})
        return {key: rest(value[key], f"{place}/{key}") for key in value if key not in MOMENT}

    return {**rest(data, ""), KEY: moment}


def put_back(data: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `set_apart`, of the data of a file.

    Raises:
        LookupError: A pointer leads nowhere.
    """
    whole = {key: value for key, value in data.items() if key != KEY}
    for pointer, value in data[KEY].items():
        *path, name = pointer.split("/")[1:]
        place: Any = whole
        for step in path:
            place = place[int(step) if isinstance(place, list) else step]
        place[name] = value
    return whole


def schema_apart(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of results, as `set_apart` leaves them."""

    def rest(table: Mapping[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in table.get("properties", {}).items() if k not in MOMENT}
        required = [k for k in table.get("required", []) if k not in MOMENT]
        parts = {"properties": kept, "required": required}
        return {**table, **parts} if "properties" in table else dict(table)

    apart = rest(schema)
    apart["$defs"] = {name: rest(table) for name, table in schema["$defs"].items()}
    values = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}
    apart["properties"][KEY] = {"type": "object", "additionalProperties": values}
    apart["required"].append(KEY)
    return apart
