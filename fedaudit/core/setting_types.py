"""Do the settings of a plugin have the types that its signature states?"""

import inspect
import json
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from fedaudit.core.errors import ConfigError

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "left out",
}


def check_types(what: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Compare settings with the annotations of the plugin's signature.

    Values are compared as TOML writes them: a list does for a tuple, a whole number for a number,
    and nothing for anything else. Settings without an annotation are not checked, nor are those
    that no study file could hold.

    Args:
        what: What the settings are of ("attack 'x'").
        factory: The plugin's class or function.
        settings: By name.

    Raises:
        ConfigError: Names the setting, its value and what is needed.
    """
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters
    except (TypeError, ValueError, NameError):  # built in C, or annotated for type checkers only
        return
    for name, value in settings.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.annotation is parameter.empty:
            continue
        if not _fits(value, parameter.annotation):
            raise ConfigError(
                f"{what}: {name} must be {needed(parameter.annotation)}, not {_shown(value)}."
            )


def needed(annotation: Any) -> str:
    """A type in the words of a study file.

    >>> needed(tuple[int, ...]), needed(float | None), needed(Literal["a", "b"])
    ('a list, each a whole number', 'a number or left out', 'one of "a", "b"')
    """
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return f"one of {', '.join(map(_shown, inside))}"
    if origin in {Union, UnionType}:
        return " or ".join(map(needed, inside))
    if origin is tuple and inside[-1:] != (...,):
        return f"a list of {len(inside)}: {', '.join(map(needed, inside))}"
    if origin in {tuple, list}:
        return f"a list, each {needed(inside[0])}"
    return inspect.formatannotation(annotation)


def _fits(value: Any, annotation: Any) -> bool:
    try:
        written = json.dumps(value)
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True))
    except (TypeError, ValueError, PydanticUserError):  # neither is of a study file
        return True
    try:
        adapter.validate_json(written)
    except ValidationError:
        return False
    return True


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
