"""What there is to list and to explain: plugins of every kind, and threat models."""

import inspect
from collections.abc import Iterator
from typing import Any

from fedaudit.core import registry
from fedaudit.core.errors import FedauditError

THREATS = "threat-models"
KINDS = (*registry.KINDS, THREATS)
UNREGISTERED = "not registered"
"""Kind of what is named by its module, `package.module:Object`: nothing says which it is."""
FOR_PLUGINS = frozenset({"metrics"})
"""Kinds that packages can add to, but that no key of a study chooses."""


def names(kind: str) -> tuple[str, ...]:
    """Names of one kind."""
    if kind != THREATS:
        return registry.names(kind)
    from fedaudit.core.threat_models import THREAT_MODELS  # noqa: PLC0415 - imports torch

    return tuple(THREAT_MODELS)


def summary(kind: str, name: str) -> str:
    """One line on a plugin; a broken one says so and does not hide the others."""
    if kind == THREATS:
        from fedaudit.core.threat_models import threat_model  # noqa: PLC0415 - imports torch

        return threat_model(name).summary
    try:
        return registry.describe(kind, name)
    except (ImportError, AttributeError, FedauditError) as error:
        return f"(cannot be loaded: {error})"


def explanation(kind: str, name: str) -> dict[str, Any]:
    """Everything known of a plugin, as plain data.

    Raises:
        FedauditError: It cannot be loaded.
    """
    if kind == THREATS:
        from fedaudit.core.threat_models import threat_model  # noqa: PLC0415 - imports torch

        threat = threat_model(name)
        grants = sorted(str(fact) for fact in threat.grants)
        return {"kind": kind, "name": name, "text": threat.summary, "grants": grants}
    try:
        plugin = registry.lookup(kind, name)
    except (ImportError, AttributeError) as error:
        raise FedauditError(
            f"{kind.removesuffix('s')} {name!r} is registered but cannot be imported: {error}. "
            "Repair or remove the package that brings it."
        ) from error
    entry: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "text": inspect.getdoc(plugin) or "",
        "settings": list(_settings(plugin)),
    }
    for attribute in ("needs", "reads"):
        if isinstance(value := getattr(plugin, attribute, None), frozenset):
            entry[attribute] = sorted(getattr(v, "__name__", str(v)) for v in value)
    if isinstance(paper := getattr(plugin, "paper", None), str):
        entry["paper"] = paper
    if isinstance(paper := getattr(plugin, "published", None), dict):
        entry["published"] = {setting: repr(value) for setting, value in paper.items()}
    return entry


def _settings(plugin: Any) -> Iterator[dict[str, str]]:
    try:
        parameters = inspect.signature(plugin).parameters.values()
    except (TypeError, ValueError):  # built in C
        return
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            continue
        setting = {"name": parameter.name}
        if parameter.annotation is not parameter.empty:
            setting["type"] = inspect.formatannotation(parameter.annotation)
        if parameter.default is not parameter.empty:
            setting["default"] = repr(parameter.default)
        yield setting
