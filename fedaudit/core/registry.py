"""Names → plugins, through entry points: one path for our own plugins and for third parties'."""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.setting_types import check_types

KINDS = ("attacks", "defenses", "methods", "priors", "metrics", "captures", "data", "networks")

RENAMED = {("attacks", "entry"): "first_fully_connected"}
"""(kind, former name of a setting) → its name today."""


@cache
def _table(kind: str) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=f"fedaudit.{kind}"))}


def names(kind: str) -> tuple[str, ...]:
    """The registered names of one kind (one of `KINDS`), sorted."""
    return tuple(_table(kind))


def object_names(kind: str) -> dict[str, str]:
    """Name of each registered class or function (`DPSGD`) → the name that it registers under."""
    return {point.attr: name for name, point in _table(kind).items()}


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """What a module that gives plugins by name raises; names the closest that it has."""
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def lookup(kind: str, name: str) -> Any:
    """The class or function registered under `name`.

    Args:
        kind: One of `KINDS`.
        name: A registered name, or `package.module:object` for something that is not registered.

    Raises:
        UnknownNameError: Nothing is registered under that name.
        ConfigError: `package.module:object` cannot be imported.
    """
    if ":" in name:
        return import_object(name)
    point = _table(kind).get(name)
    if point is None:
        what = "data set" if kind == "data" else kind.removesuffix("s")
        raise UnknownNameError(what, name, names(kind))
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the {kind.removesuffix('s')} {name!r} ({point.value}) cannot be imported: {error}. "
            "Reinstall the package that registers it."
        ) from error


def create(kind: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Build a plugin with keyword settings; an unknown setting names the closest known one.

    Raises:
        UnknownNameError: The name or a setting does not exist.
        ConfigError: A setting has a value that the plugin refuses, or of another type.
    """
    factory = lookup(kind, name)
    known = [p.name for p in inspect.signature(factory).parameters.values()]
    for option in settings:
        if option in known:
            continue
        if (now := RENAMED.get((kind, option))) in known:
            raise ConfigError(
                f"{kind.removesuffix('s')} {name!r}: the option {option!r} is called {now!r} now."
            )
        raise UnknownNameError(f"option of {kind.removesuffix('s')} {name!r}:", option, known)
    check_types(f"{kind.removesuffix('s')} {name!r}", factory, settings)
    try:
        return factory(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{kind.removesuffix('s')} {name!r} refused its settings: {error}"
        ) from error


def import_object(path: str) -> Any:
    """What `package.module:object` names.

    Raises:
        ConfigError: The module cannot be imported or has no such object.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot import {path!r}: {error}. Write it as package.module:factory, and check that "
            "the package is installed in this environment."
        ) from error


def describe(kind: str, name: str) -> str:
    """First line of the plugin's docstring."""
    text = inspect.getdoc(lookup(kind, name)) or ""
    return text.splitlines()[0] if text else ""
