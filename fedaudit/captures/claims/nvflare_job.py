"""An NVFlare job's configuration: which filters change what clients send, and for how many rounds.

Files are read as data; no path in them is imported.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fedaudit.captures.claims.relaxed_json import parse
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism, Value
from fedaudit.core.errors import ConfigError

CLIENT = ("config_fed_client.json", "config_fed_client.conf")
SERVER = ("config_fed_server.json", "config_fed_server.conf")
VERSION = 2
"""`format_version` of NVFlare 2.x."""
CHANGES_NOTHING = frozenset({"RecordFilter", "ConvertWeights"})
LABEL = re.compile(r"(?i:differential(?:ly)?[\s_-]+priva(?:cy|te))|(?:#|//)[^\n]*\bDP\b")
"""Words by which a file calls something differential privacy; the abbreviation in a comment."""


def client_filters(text: str, name: str) -> Iterator[StatedMechanism]:
    """Filters of what a client sends, in their order.

    Args:
        text: Of the file.
        name: Of the file, for messages.

    Raises:
        ConfigError: It is no job file, or of another version.
    """
    config = _config(text, name)
    label = LABEL.search(text)
    for at, group in enumerate(_list(config.get("task_result_filters"))):
        for number, one in enumerate(_list(group.get("filters"))):
            path = str(one.get("path") or one.get("name") or "")
            kind = path.rpartition(".")[2]
            if not kind or kind in CHANGES_NOTHING:
                continue
            arguments = one.get("args")
            yield StatedMechanism(
                name=kind,
                place=f"{name}: task_result_filters[{at}].filters[{number}]",
                settings={
                    str(key): plain(value)
                    for key, value in (arguments if isinstance(arguments, Mapping) else {}).items()
                    if value is not None and key != "data_kinds"
                },
                label=" ".join(label.group().strip("#/ ").split())[:60] if label else "",
            )


def server_size(text: str, name: str) -> RunSize:
    """Rounds and clients of a job; raises as `client_filters`."""
    config = _config(text, name)
    rounds = clients = None
    for workflow in _list(config.get("workflows")):
        arguments = workflow.get("args")
        if isinstance(arguments, Mapping):
            rounds = rounds or _count(arguments.get("num_rounds"))
            clients = clients or _count(
                arguments.get("num_clients") or arguments.get("min_clients")
            )
    return RunSize(
        rounds=rounds or _count(config.get("num_rounds")),
        clients=clients or _count(config.get("min_clients")),
    )


def plain(value: Any) -> Value:
    """A setting as it is shown and compared; tables become text."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return tuple(map(str, value)) if isinstance(value, list | tuple) else str(value)[:200]


def _config(text: str, name: str) -> Mapping[str, Any]:
    try:
        config = parse(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}. Export the job as JSON: recipe.export(…).") from error
    if not isinstance(config, Mapping):
        raise ConfigError(f"{name}: it is no table, as a job file of NVFlare is.")
    version = config.get("format_version")
    if version != VERSION:
        raise ConfigError(
            f"{name}: format_version is {str(version)[:40]}, and only {VERSION} (NVFlare 2.x) is "
            "known. Export the job with NVFlare 2.x."
        )
    return config


def _list(value: Any) -> list[Mapping[str, Any]]:
    entries = value if isinstance(value, list) else []
    return [one for one in entries if isinstance(one, Mapping)]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
