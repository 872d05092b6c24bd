"""Which code a study names: `package.module:object`, wherever a plugin or a setting may say so."""

import re
from collections.abc import Iterator, Mapping

from fedaudit.core.errors import ConfigError
from fedaudit.core.scenario import Study

_CODE = re.compile(r"[\w.]+:(?![\\/])")
"""A drive's letter or an address is followed by a slash."""


def code_in(study: Study) -> tuple[str, ...]:
    """The names that are imported, not looked up, when the study is checked or run; each once."""
    choices = [study.data]
    for scenario in study.scenarios:
        choices += [scenario.network, scenario.method, *scenario.defenses, *scenario.attacks]
    return tuple(dict.fromkeys(name for one in choices for name in _code((one.name, one.settings))))


def refuse_code(names: tuple[str, ...]) -> None:
    """Refuse to import what a study names, before it is imported.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"the study names code ({', '.join(names)}), which `fedaudit run` imports and runs. A dry "
        "run does not: read the study, and if you trust it, give --load-code, too."
    )


def _code(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if _CODE.match(value):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _code(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _code(one)
