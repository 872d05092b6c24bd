"""What a value must be, in the words of a study file, read off the JSON schema of its type."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "null": "left out",
    "object": "a table",
    "path": "a path",
}
_BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "of at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}


def requirement(schema: Mapping[str, Any]) -> str:
    """What a value of this JSON schema must be; the schema's own description, if it has one.

    >>> requirement({"type": "array", "items": {"type": "integer", "minimum": 1}})
    'a list, each a whole number of at least 1'
    """
    items = schema.get("items", {})
    if "description" in schema:
        must = str(schema["description"])
    elif words := schema.get("enum", [schema["const"]] if "const" in schema else []):
        must = f"one of {', '.join(map(show_value, words))}"
    elif "anyOf" in schema:
        must = " or ".join(map(requirement, schema["anyOf"]))
    elif each := schema.get("prefixItems"):
        must = f"a list of {len(each)}: {', '.join(map(requirement, each))}"
    elif schema.get("type") == "array":
        must = f"a list, each {requirement(items)}" if items else "a list"
    else:
        kind = schema.get("format", schema.get("type", ""))
        must = f"{_WORDS.get(kind, 'something else')} {_bounds(schema)}".strip()
    return must


def _bounds(schema: Mapping[str, Any]) -> str:
    bounds = {words: schema[key] for key, words in _BOUNDS.items() if key in schema}
    texts = (f"{words} {bound:g}" for words, bound in bounds.items() if abs(bound) < 2**31 - 1)
    return " and ".join(texts)


def requirement_of_type(annotation: Any) -> str:
    """What a value of a Python type must be.

    >>> requirement_of_type(tuple[int, ...]), requirement_of_type(float | None)
    ('a list, each a whole number', 'a number or left out')
    """
    try:
        return requirement(TypeAdapter(annotation).json_schema())
    except PydanticInvalidForJsonSchema:
        return inspect.formatannotation(annotation)


def show_value(value: object) -> str:
    """A wrong value as a study file would hold it, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # such as nan, or a number of thousands of digits
        text = "a huge number" if isinstance(value, int) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
