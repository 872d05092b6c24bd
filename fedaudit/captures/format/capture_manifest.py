"""`capture.json`, the manifest of a capture: the facts, their format, and its JSON schema."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from fedaudit.captures.format.capture_facts import Facts, Text
from fedaudit.captures.format.message_header import messages

VERSION: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`capture.json`: the facts, and which format they are in.

    Attributes:
        version: Of the format.
        fedaudit: Version of fedaudit that wrote it.
        created: When, in UTC (ISO 8601).
        facts: What is known of the federation.
    """

    version: Literal[1]
    fedaudit: Text
    created: Text
    facts: Facts = Facts()  # noqa: RUF009 - frozen; a factory would leave the schema no default


@cache
def manifests() -> TypeAdapter[Manifest]:
    """Reads and writes `capture.json`."""
    return TypeAdapter(Manifest)


def schema() -> dict[str, Any]:
    """JSON schema of `capture.json`; the schema of a message's header stands in `$defs`."""
    root = manifests().json_schema(ref_template="#/$defs/{model}")
    message = messages().json_schema(ref_template="#/$defs/{model}")
    root["$defs"] = {**root.get("$defs", {}), **message.pop("$defs", {}), "Message": message}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root}
