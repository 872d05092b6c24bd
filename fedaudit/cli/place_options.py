"""Options that say where jobs are done and what they take. Nothing heavy is imported."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fedaudit.study.executors.choice import EXECUTORS, Place
from fedaudit.study.executors.pool import Resources

Command = TypeVar("Command", bound=Callable[..., Any])


class Quantity(click.ParamType[float]):
    """A number with a unit, such as 20m or 2G; a bare number is of the smallest unit."""

    def __init__(self, name: str, units: dict[str, float]) -> None:
        self.name, self._units = name, units

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number in the smallest unit."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]?)[Bb]?\s*", str(value))
        factor = self._units.get(match[2].lower()) if match else None
        if match is None or factor is None or not float(match[1]):
            units = ", ".join(unit for unit in self._units if unit)
            self.fail(f"{value!r} is no {self.name}: a number above 0 and one of {units}.")
        return float(match[1]) * factor


DURATION = Quantity("duration", {"s": 1, "": 1, "m": 60, "h": 3600, "d": 86400})
BYTES = Quantity("size", {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12})


def _settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _value in pairs:
        if not equals or not re.fullmatch("[a-z_]+", name):
            raise click.BadParameter(f"{name!r} is no setting such as partition=gpu.")
    return {name: value for name, _, value in pairs}


_DEVICE = click.option(
    "--device", default="cpu", show_default=True, help="Where attacks compute, such as cuda."
)
_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Cells at once; of slurm, tasks.  [default: CPU cores]",
    ),
    click.option(
        "--executor",
        type=click.Choice(EXECUTORS),
        default="processes",
        show_default=True,
        help="Where cells are computed: here, or on a cluster.",
    ),
    click.option(
        "--address", metavar="HOST:PORT", help="Running Ray cluster.  [default: one started here]"
    ),
    click.option(
        "--slurm",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_settings,
        help="How to submit, such as partition=gpu. Repeatable.",
    ),
    click.option(
        "--cores",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="CPU cores of a cell; another number changes the last bits of results.",
    ),
    click.option(
        "--cell-memory", type=BYTES, metavar="2G", help="End a cell that takes more; it has failed."
    ),
    click.option(
        "--cell-timeout",
        type=DURATION,
        metavar="20m",
        help="End a cell that takes longer; it has failed.",
    ),
    click.option(
        "--gpu-share",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="0.25",
        help="Part of a card that a cell takes.  [default: 1 on another device]",
    ),
)


def place_options(*, device: bool = True) -> Callable[[Command], Callable[..., Any]]:
    """Add them to a command, which gets their values as `place`.

    Args:
        device: Whether the command can compute on another device.
    """

    def add(command: Command) -> Callable[..., Any]:
        @functools.wraps(command)
        def collect(
            *,
            executor: Any,
            workers: int | None,
            address: str | None,
            slurm: dict[str, str],
            cores: int,
            cell_memory: float | None,
            cell_timeout: float | None,
            gpu_share: float | None,
            device: str = "cpu",
            **values: Any,
        ) -> Any:
            gpu = 0.0 if device == "cpu" else gpu_share or 1.0
            memory = None if cell_memory is None else int(cell_memory)
            needs = Resources(cores, memory, gpu)
            place = Place(executor, workers, device, needs, cell_timeout, address, slurm)
            return command(place=place, **values)

        wrapper: Callable[..., Any] = collect
        for option in reversed((*_OPTIONS[:1], *((_DEVICE,) if device else ()), *_OPTIONS[1:])):
            wrapper = option(wrapper)
        return wrapper

    return add
