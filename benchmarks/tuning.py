"""`--set NAME=VALUE` of a benchmark: repeats the comparisons that chose a setting or a constant.

    python benchmarks/subspace.py --people p01 p02 --set steps=50 mends=0
    python benchmarks/deployed_networks.py --people p01 p02 --training \
        --set attacks.search.schedules.coupled.COUPLED_VARIATION=1

A name alone is a setting of the attack; one with dots is a constant of a module of fedaudit, as
comments beside constants name them.
"""

import argparse
import sys
from ast import literal_eval
from collections.abc import Iterable
from importlib import import_module
from typing import Any


def add_set(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="given",
                        help="settings of the attack, or constants by their module")  # fmt: skip


def settings(given: Iterable[str]) -> dict[str, Any]:
    """Settings of the attack; constants are put into every module that holds them."""
    found = {}
    for name, _, value in (one.partition("=") for one in given):
        module, _, last = name.rpartition(".")
        if module:
            held = import_module(f"fedaudit.{module}")
            if not hasattr(held, last):
                raise SystemExit(f"fedaudit.{module} has no constant {last}")
            _replace(last, getattr(held, last), literal_eval(value))
        else:
            found[name] = literal_eval(value)
    return found


def _replace(name: str, old: object, new: object) -> None:
    """A constant's value in every module of fedaudit that holds it by that name."""
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] == "fedaudit"]:
        if getattr(module, name, None) is old:
            setattr(module, name, new)
