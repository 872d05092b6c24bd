"""Settings of few values, and lists: refused where they are set, not taken for something else."""

from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.requirement import requirement_of_type, show_value


def check_choices(settings: Any) -> None:
    """Refuse a dataclass with a field that is none of the few values of its `Literal` type.

    So is one text refused for a list of them, of which Python makes a list of letters.

    Raises:
        UnknownNameError: Names the field, the closest value and all that there are.
        ConfigError: Names the field that needs a list, in a study file's words.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Sampling:
    ...     start: Literal["gray", "uniform"] = "gray"
    >>> check_choices(Sampling(start="grey"))
    Traceback (most recent call last):
      ...
    fedaudit.core.errors.UnknownNameError: unknown start 'grey': did you mean 'gray'? Choose from \
gray, uniform.
    """
    for name, annotation in get_type_hints(type(settings)).items():
        choices = _choices(annotation)
        value = getattr(settings, name)
        if choices and value not in choices:
            raise UnknownNameError(name, str(value), [str(c) for c in choices if c is not None])
        if isinstance(value, str) and get_origin(annotation) in (tuple, list, Sequence):
            must = requirement_of_type(annotation)
            raise ConfigError(f"{name} must be {must}, not {show_value(value)}.")


def _choices(annotation: Any) -> tuple[Any, ...]:
    """All values of a type made of `Literal`s and None; () for one that is not."""
    if annotation is type(None):
        return (None,)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is Union:
        parts = [_choices(part) for part in get_args(annotation)]
        return sum(parts, ()) if all(parts) else ()
    return ()
