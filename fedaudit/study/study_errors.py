"""What is wrong in a study file: where it stands, what the value must be, and what to write."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedaudit.core.errors import ConfigError, UnknownNameError, UsageError
from fedaudit.core.requirement import requirement, show_value
from fedaudit.study.plugin_tables import LabelError


def validate(adapter: TypeAdapter[Any], tables: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The tables of a study file as their model reads them.

    Raises:
        UsageError: Names every problem: the file, the table, the key, and what to write.
    """
    try:
        values: dict[str, Any] = adapter.validate_python(dict(tables))
        return values
    except ValidationError as error:
        schema = adapter.json_schema()
        problems = [_problem(one, schema, tables, file) for one in error.errors()]
    if len(problems) == 1:
        raise problems[0]
    raise ConfigError("\n".join(map(str, problems)))


def place_of_scenario(file: str, scenario: object, number: int) -> str:
    """How errors call a scenario, the `number`-th from 0 on."""
    name = scenario.get("name") if isinstance(scenario, Mapping) else None
    return (
        f"{file}: scenario {name!r}" if isinstance(name, str) else f"{file}: scenario {number + 1}"
    )


def _problem(
    error: Mapping[str, Any], schema: dict[str, Any], tables: Mapping[str, Any], file: str
) -> UsageError:
    loc, value, kind = list(error["loc"]), error["input"], error["type"]
    cause = error.get("ctx", {}).get("error", "")
    if loc == ["scenario"]:
        return _no_scenario(value if kind != "missing" else None, file)
    if isinstance(cause, LabelError):
        loc, value = [*loc, "label"], str(cause)
    place, inside = _table(loc, tables, file)
    node = _node(schema, loc)
    if kind == "extra_forbidden":
        keys = _resolve(schema, _node(schema, loc[:-1]))["properties"]
        return UnknownNameError("key", str(loc[-1]), keys, where=place)
    if "enum" in node and isinstance(value, str):
        return UnknownNameError(node["title"].lower(), value, node["enum"], where=place)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
    key = key.removeprefix(".")
    if not key:
        problem = f" must be a table, not {show_value(value)}."
    elif key == "name" and (kind == "missing" or value == ""):
        what, example = ("scenario", "fresh") if loc[0] == "scenario" else ("study", "…")
        problem = f': a {what} needs a name. Write name = "{example}".'
    elif str(cause) and not isinstance(cause, LabelError):
        problem = f": {str(cause).replace('{key}', key)}"
    else:
        problem = f": {key} must be {requirement(node)}, not {show_value(value)}."
        if examples := node.get("examples") or node.get("enum", [])[:1]:
            form = ", or ".join(map(_toml, examples))
            problem += f" Write for instance {key.rpartition('.')[2]} = {form}."
    return ConfigError(place + problem)


def _no_scenario(value: object, file: str) -> ConfigError:
    if isinstance(value, Mapping):
        return ConfigError(
            f"{file}: [scenario] is one table, and there may be several scenarios. Write "
            "[[scenario]] with double brackets."
        )
    return ConfigError(
        f"{file}: a study needs at least one scenario, in double brackets. Write "
        '[[scenario]] and below it name = "fresh".'
    )


def _table(
    loc: Sequence[str | int], tables: Mapping[str, Any], file: str
) -> tuple[str, Sequence[str | int]]:
    """Where the table is that holds a value, and the way from it to the value."""
    place, rest = file, list(loc)
    if rest[0] == "scenario" and len(rest) > 1:
        number = int(rest[1])
        place, rest = place_of_scenario(file, tables["scenario"][number], number), rest[2:]
    elif rest[0] == "defaults":
        place, rest = f"{file}: defaults", rest[1:]
    if rest and rest[0] == "federation":
        place, rest = f"{place}{': ' if place == file else '.'}federation", rest[1:]
    return place, rest


def _node(schema: dict[str, Any], loc: Sequence[str | int]) -> dict[str, Any]:
    """The JSON schema of what stands there."""
    node = schema
    for part in loc:
        node = _resolve(schema, node)
        if isinstance(part, int):
            lists = [one for one in (node, *node.get("anyOf", ())) if "items" in one]
            node = lists[0]["items"] if lists else {}
        else:
            inside = node.get("properties", {}).get(part) or node.get("additionalProperties")
            node = inside if isinstance(inside, dict) else {}
    return node


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for one in (node, *node.get("anyOf", ())):
        if "$ref" in one:
            definition: dict[str, Any] = schema["$defs"][one["$ref"].rpartition("/")[2]]
            return definition
    return node


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = (k if k == "…" else f"{k} = {_toml(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
