"""Which code a study names: `package.module:object`, wherever a plugin or a setting may say so."""

import os
import re
import sys
from collections.abc import Iterator, Mapping

from fedaudit.core.errors import ConfigError
from fedaudit.core.scenario import Study
from fedaudit.models.library_networks import is_library_name
from fedaudit.models.network_file import is_file

_CODE = re.compile(r"[\w.]+:(?![\\/])")
"""A drive's letter or an address is followed by a slash."""


def code_in(study: Study) -> tuple[str, ...]:
    """The names that are imported, not looked up, when the study is checked or run; each once.

    And files that hold a network: what one computes is run.
    """
    choices = [study.data, *study.judges]
    for scenario in study.scenarios:
        if not is_library_name(scenario.network.name):
            choices.append(scenario.network)
        choices += [scenario.method, *scenario.defenses, *scenario.attacks]
    files = [s.network.name for s in study.scenarios if is_file(s.network.name)]
    named = (name for one in choices for name in _code((one.name, one.settings)))
    return tuple(dict.fromkeys((*named, *files)))


def look_in_current_folder() -> None:
    """Let code that a user names lie in the current folder; workers inherit it.

    Last, so that a file in it stands in for no module that is installed.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def look_for_code(model: str | None) -> None:
    """Let a model that a user names as `module:factory` lie in the current folder."""
    if model and ":" in model and not is_library_name(model):
        look_in_current_folder()


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
