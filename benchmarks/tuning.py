"""`--set NAME=VALUE` of a benchmark: repeats the comparisons that chose a setting or a constant.

    python benchmarks/subspace.py --people p01 p02 --set steps=50 mends=0
    python benchmarks/deployed_networks.py --people p01 p02 --training \
        --set attacks.search.schedules.one_photo_batch_norm.COUPLED_VARIATION=1

A name alone is a setting of the attack; one with dots is a constant of a module of fedaudit, as
comments beside constants name them.
"""

import argparse
import ast
import inspect
import sys
from ast import literal_eval
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any


def add_set(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="given",
                        help="settings of the attack, or constants by their module")  # fmt: skip


def settings(given: Iterable[str]) -> dict[str, Any]:
    """Settings of the attack; constants are put into their module and those that import them."""
    found = {}
    for name, _, text in (one.partition("=") for one in given):
        module, _, last = name.rpartition(".")
        if module:
            held = import_module(f"fedaudit.{module}")
            if not hasattr(held, last):
                raise SystemExit(f"fedaudit.{module} has no constant {last}")
            value, old = literal_eval(text), getattr(held, last)
            for module in [held, *_importers(held.__name__, last, old)]:
                setattr(module, last, value)
        else:
            found[name] = literal_eval(text)
    return found


def _importers(origin: str, name: str, value: object) -> list[ModuleType]:
    """Modules of fedaudit that import a constant by its name, not those that have one like it."""
    return [
        module
        for place, module in list(sys.modules.items())
        if place.startswith("fedaudit.")
        and getattr(module, name, None) is value
        and any(
            isinstance(line, ast.ImportFrom)
            and line.module == origin
            and name in [one.name for one in line.names]
            for line in ast.parse(inspect.getsource(module)).body
        )
    ]
