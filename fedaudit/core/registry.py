"""Names → plugins, through entry points: one path for our own plugins and for third parties'."""

import importlib
import inspect
import json
import math
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from fedaudit.core.errors import ConfigError, FedauditError, UnknownNameError, first_line
from fedaudit.core.requirement import requirement_of_type, show_value

KINDS = ("attacks", "defenses", "methods", "metrics", "data", "networks", "judges")

RENAMED = {("attacks", "entry"): "first_fully_connected"}
"""(kind, former name of a setting) → its name today."""
RENAMED_PLUGINS = {("attacks", "lti"): "learned_inversion"}
"""(kind, former name of a plugin) → its name today."""


@cache
def _table(kind: str) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=f"fedaudit.{kind}"))}


def names(kind: str) -> tuple[str, ...]:
    """The registered names of one kind (one of `KINDS`), sorted."""
    return tuple(_table(kind))


def is_ours(kind: str, name: str) -> bool:
    """Whether a plugin comes with this package, and not from another one or from a file."""
    point = _table(kind).get(name)
    return point is not None and point.module.startswith("fedaudit.")


def object_names(kind: str) -> dict[str, str]:
    """Name of each registered class or function (`DPSGD`) → the name that it registers under."""
    return {point.attr: name for name, point in _table(kind).items()}


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """What a module that gives plugins by name raises; names the closest that it has."""
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def lookup(kind: str, name: str) -> Any:
    """The class or function registered under `name`, or that `package.module:object` names.

    Raises:
        UnknownNameError: Nothing is registered under that name.
        ConfigError: What it names cannot be imported.
    """
    if ":" in name:
        return import_object(name)
    point = _table(kind).get(name)
    if point is None:
        if now := RENAMED_PLUGINS.get((kind, name)):
            raise ConfigError(f"{_noun(kind)} {name!r} is called {now!r} now.")
        module, _, attribute = name.rpartition(".")
        if attribute.isidentifier() and _is_module(module):
            raise ConfigError(
                f"unknown {_noun(kind)} {name!r}: code is named with a colon, {module}:{attribute}."
            )
        raise UnknownNameError(_noun(kind), name, names(kind))
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{_noun(kind)} {name!r} ({point.value}) is registered but cannot be imported: "
            f"{error}. Repair or reinstall the package that registers it."
        ) from error


def create(kind: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Build a plugin with keyword settings; an unknown setting names the closest known one.

    Raises:
        UnknownNameError: The name or a setting does not exist.
        ConfigError: A setting is missing, has another type, or a value that the plugin refuses.
    """
    factory = check_settings(kind, name, settings)
    try:
        return factory(**settings)
    except FedauditError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_noun(kind)} {name!r} refused its settings: {error}") from error
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        if ":" not in name:
            raise
        raise ConfigError(
            f"{_noun(kind)} {name!r} raised {type(error).__name__}: {first_line(error)}"
        ) from error


def check_settings(
    kind: str, name: str, settings: Mapping[str, Any], *, later: Collection[str] = ()
) -> Any:
    """Look a plugin up and compare settings with its signature, without building it.

    Values are compared as TOML writes them: a list does for a tuple, a whole number for a number,
    and nothing for anything else. Settings without an annotation are not checked, nor are those
    that no study file could hold. Those of `later` need not be there yet.

    Raises:
        UnknownNameError: The name or a setting does not exist.
        ConfigError: A setting is missing or has another type; the message says what is needed.
    """
    factory = lookup(kind, name)
    try:
        parameters = _signature(factory).parameters
    except (TypeError, ValueError):  # built in C; it will refuse on its own
        return factory
    free = {Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL}
    options = [p.name for p in parameters.values() if p.kind not in free]
    what = f"{_noun(kind)} {name!r}"
    for option, value in settings.items():
        if option not in options:
            if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
                continue
            if (now := RENAMED.get((kind, option))) in options:
                raise ConfigError(f"{what}: the option {option!r} is called {now!r} now.")
            raise UnknownNameError(f"option of {what}:", option, options)
        if not _fits(value, annotation := parameters[option].annotation):
            must = requirement_of_type(annotation)
            raise ConfigError(f"{what}: {option} must be {must}, not {show_value(value)}.")
    for p in parameters.values():
        if p.name in options and p.default is p.empty and p.name not in {*settings, *later}:
            raise ConfigError(f'{what} needs {p.name!r}. Write {{name = "{name}", {p.name} = …}}.')
    return factory


def _signature(factory: Any) -> Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError:  # annotated for type checkers only
        return inspect.signature(factory)


def _fits(value: object, annotation: Any) -> bool:
    if not _is_sound(value):
        return False
    if annotation is Parameter.empty or isinstance(annotation, str):
        return True
    try:
        document = json.dumps(value)
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True))
    except (TypeError, ValueError, PydanticUserError):  # neither is of a study file
        return True
    try:
        adapter.validate_json(document)
    except ValidationError:
        return False
    return True


def _is_sound(value: object) -> bool:
    """Whether no number in a setting is NaN, or a whole one beyond 64 bits."""
    if isinstance(value, list | tuple):
        return all(map(_is_sound, value))
    if isinstance(value, Mapping):
        return all(map(_is_sound, value.values()))
    if isinstance(value, int):
        return abs(value) < 1 << 64
    return not isinstance(value, float) or not math.isnan(value)


def _noun(kind: str) -> str:
    return "data set" if kind == "data" else kind.removesuffix("s")


def _is_module(name: str) -> bool:
    """Whether a package or module of that name is there to be imported."""
    try:
        return bool(name) and find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def import_object(path: str) -> Any:
    """What `package.module:object` names; a `ConfigError` where it cannot be imported."""
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ConfigError(f"cannot import {path!r}: write it as package.module:factory.")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        hint = (
            "Write it as package.module:factory, and check that the package is installed in this "
            "environment."
        )
        first = module.partition(".")[0]
        if error.name == first and (Path(f"{first}.py").is_file() or Path(first).is_dir()):
            hint = (
                f"{first!r} lies in this folder, where nothing is imported from unasked: say "
                "PYTHONPATH=. before the command."
            )
        raise ConfigError(f"cannot import {path!r}: {error}. {hint}") from error
    except (Exception, SystemExit) as error:  # a stranger's module may do anything
        raise ConfigError(
            f"cannot import {path!r}: {module} raised {type(error).__name__}: "
            f"{first_line(error).rstrip('.')}. Mend that, and let what a script runs stand under "
            "if __name__ == '__main__'."
        ) from error
    try:
        return getattr(imported, attribute)
    except AttributeError as error:
        close = get_close_matches(attribute, vars(imported), n=1, cutoff=0.5)
        hint = f": did you mean {close[0]!r}?" if close else "."
        raise ConfigError(
            f"cannot import {path!r}: {module} has nothing of that name{hint}"
        ) from error


def describe(kind: str, name: str) -> str:
    """First line of the plugin's docstring."""
    text = inspect.getdoc(lookup(kind, name)) or ""
    return text.splitlines()[0] if text else ""
