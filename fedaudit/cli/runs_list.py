"""`fedaudit runs ls` and `fedaudit runs show`: what run folders say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import INCONCLUSIVE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json

if TYPE_CHECKING:
    from fedaudit.reports.archive import RunSummary

CLEAN = "NO LEAK FOUND ABOVE LIMIT"
HEADS = ("NAME", "BEGUN", "VERDICT", "SEVERITY", "DEPLOYED", "PEOPLE", "SIZE", "STATE", "BUILD")
json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@click.command(
    epilog=examples(
        "fedaudit runs ls",
        "fedaudit runs ls audits/2026 --json",
        note="Every file is hashed and compared with the list that its run wrote. Verdicts are as "
        "results.json states them: `fedaudit verify` checks that they follow from the cells.",
    )
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default="runs")
@json_option
def ls(*, directory: Path, as_json: bool) -> int:
    """List the run folders in DIRECTORY and below it, the latest first; `runs` by default."""
    from fedaudit.cli.terminal_table import show as show_table  # noqa: PLC0415 - imports rich
    from fedaudit.core.errors import UsageError  # noqa: PLC0415 - startup time
    from fedaudit.reports.archive import list_runs, plain  # noqa: PLC0415 - imports torch

    if not directory.is_dir():
        raise UsageError(
            f"there is no folder {str(directory)!r}. `fedaudit runs ls DIRECTORY` lists the runs "
            "of another one."
        )
    runs = list_runs(directory)
    if as_json:
        say_json([plain(run) for run in runs])
    elif runs:
        show_table(HEADS, [_line(run) for run in runs])
    else:
        say(f"no run below {directory}")
    return OK


@click.command(
    epilog=examples(
        "fedaudit runs show runs/first",
        "fedaudit runs show runs/first --json",
        note="Exit codes: 0 the run is finished and as it was listed, 3 it is not.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def show(*, run: Path, as_json: bool) -> int:
    """Show what the run folder RUN says of itself."""
    from fedaudit.reports.archive import plain, summary  # noqa: PLC0415 - imports torch
    from fedaudit.study import manifest  # noqa: PLC0415 - imports torch

    entry = summary(run)
    if entry.state == "unreadable":
        manifest.read(run)  # says why, where it is no run folder at all
    if as_json:
        say_json(plain(entry))
    else:
        for name, value in zip(HEADS, _line(entry), strict=True):
            say(f"{name.lower():<10}{value}")
        for name, value in (
            ("study", entry.study),
            ("evidence", entry.evidence or ""),
            ("says", entry.sentence),
            ("because", entry.why),
            *(("removed", sentence) for sentence in entry.removed),
        ):
            if value:
                say(f"{name:<10}{value}")
    return OK if entry.state == "finished" else INCONCLUSIVE


def _line(run: RunSummary) -> tuple[str, ...]:
    from fedaudit.reports.text import ABSENT  # noqa: PLC0415 - imports torch

    return (
        run.name,
        run.started[:10] or ABSENT,
        run.verdict or ABSENT,
        # Where nothing was concluded no severity is known, and "none" would look like harmless.
        ABSENT if run.severity == "none" and run.verdict != CLEAN else run.severity or ABSENT,
        ", ".join(run.deployed) or ABSENT,
        ABSENT if run.people is None else f"{run.people}",
        f"{run.size / 1e6:.1f} MB",
        run.state,
        run.build or ABSENT,
    )
