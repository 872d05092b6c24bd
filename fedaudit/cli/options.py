"""Options that several commands share, and examples for help texts. Nothing heavy is imported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedaudit.cli.place_options import DURATION, place_options
from fedaudit.cli.say import say
from fedaudit.study.executors.choice import Place

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence

Command = TypeVar("Command", bound=Callable[..., Any])

EVIDENCE = ("none", "redacted", "full")
GATES = ("critical", "high", "medium", "low")
"""Severities from the gravest down."""

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="No progress, only failures and the verdict."
)
fail_on_option = click.option(
    "--fail-on",
    type=click.Choice(GATES),
    help="Exit with 1 if a finding about what is deployed is as grave as that.",
)
evidence_option = click.option(
    "--evidence",
    type=click.Choice(EVIDENCE),
    help="What the report shows of faces; only full keeps originals.  [default: redacted]",
)


def shown_evidence(help_text: str) -> Callable[[Command], Command]:
    """The option `--evidence` of a command that writes pages and runs nothing."""
    return click.option(
        "--evidence",
        type=click.Choice(EVIDENCE),
        default="redacted",
        show_default=True,
        help=help_text,
    )


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "json")),
    default="text",
    show_default=True,
    help="How to print it.",
)
encrypt_option = click.option(
    "--encrypt-evidence",
    multiple=True,
    metavar="RECIPIENT",
    help="Write pictures of people so that only the holder of this public key (age1…, ssh-ed25519 "
    "…) can see them.  [default: in the clear]",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be run, and run nothing."
)


def output_file(help_text: str, default: Path | None = None) -> Callable[[Command], Command]:
    """The option `--output` of a command that writes one file."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        default=default,
        show_default=default is not None,
        help=help_text,
    )


retry_failed_option = click.option(
    "--retry-failed", is_flag=True, help="Try again what failed before."
)
budget_option = click.option(
    "--budget",
    type=DURATION,
    metavar="20m",
    help="Begin no cell after that time; conclude from what there is.",
)


sequential_option = click.option(
    "--sequential",
    is_flag=True,
    help="Attack no more targets than the verdicts need; intervals allow for the looks.",
)

tensorboard_option = click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write progress and scores there for TensorBoard (pip install 'fedaudit[tensorboard]').",
)


@dataclass(frozen=True)
class RunOptions:
    """How to run a study, as opposed to what: the values of `run_options`."""

    place: Place = field(default_factory=Place)
    evidence: Evidence | None = None
    encrypt_evidence: tuple[str, ...] = ()
    fail_on: str | None = None
    dry_run: bool = False
    quiet: bool = False
    retry_failed: bool = False
    budget: float | None = None
    sequential: bool = False
    tensorboard: Path | None = None


def run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a command that runs a study; it gets their values as `options`."""

    @functools.wraps(command)
    def collect(**values: Any) -> int:
        own = {field.name: values.pop(field.name) for field in fields(RunOptions)}
        return command(options=RunOptions(**own), **values)

    wrapper: Callable[..., int] = place_options()(collect)
    for option in (
        quiet_option,
        dry_run_option,
        fail_on_option,
        encrypt_option,
        evidence_option,
        tensorboard_option,
        sequential_option,
        budget_option,
        retry_failed_option,
    ):
        wrapper = option(wrapper)
    return wrapper


def say_code(names: tuple[str, ...]) -> None:
    """Say that a study brings code of its own, before it runs."""
    say(f"note: this study names code, which now runs: {', '.join(names)}", err=True)


def examples(*lines: str, note: str = "") -> str:
    r"""Epilog of a help text; `\b` keeps click from joining the lines."""
    text = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
    return f"{text}\n\n{note}" if note else text
