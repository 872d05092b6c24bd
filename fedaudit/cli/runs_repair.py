"""`fedaudit runs repair` and `merge`: mend a run folder, and join folders of one study."""

from pathlib import Path

import click

from fedaudit.cli.ending import INCONCLUSIVE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say

_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog=examples(
        "fedaudit runs repair runs/first",
        "fedaudit run study.toml -o runs/first   # then computes what was set aside",
        note="Exits with 3 where something is to be computed.",
    )
)
@click.argument("run", type=_FOLDER)
def repair(*, run: Path) -> int:
    """Set aside what is damaged in the run folder RUN, delete what crashes left, list the rest.

    Leases of processes that are gone end, half-written files and old checkpoints go, and the list
    of hashes is made again where it is lost. No result is computed or changed.
    """
    from fedaudit.study import repair as repairs  # noqa: PLC0415 - imports torch

    result = repairs.repair(run)
    for key in result.set_aside:
        say(f"set aside: {key}")
    if result.relisted:
        say("note: the list of hashes was lost; the new one vouches from now on only", err=True)
    undone = _undone(run, result.missing)
    say(f"{run}: {result.done} jobs are whole, {undone} to do")
    return INCONCLUSIVE if undone else OK


@click.command(
    epilog=examples(
        "fedaudit runs merge runs/all runs/laptop runs/server",
        "fedaudit report runs/all",
        note="Exits with 3 where jobs are missing in all of them, or have other results in two.",
    )
)
@click.argument("into", type=_FOLDER)
@click.argument("other", type=_FOLDER, nargs=-1, required=True)
def merge(*, into: Path, other: tuple[Path, ...]) -> int:
    """Copy into the run folder INTO what OTHER, of the same study, have and it has not.

    INTO is begun where there is none.
    """
    from fedaudit.study import repair as repairs  # noqa: PLC0415 - imports torch

    result = repairs.merge(into, other)
    for key in result.unlike:
        say(f"note: {key} has other results in two folders; that of {into} stays", err=True)
    undone = _undone(into, result.missing)
    say(f"{into}: {result.copied} jobs copied, {undone} are missing in all")
    return INCONCLUSIVE if undone or result.unlike else OK


def _undone(run: Path, missing: int) -> int:
    """How many of the missing jobs are to do: what a sequential study has decided needs none."""
    from fedaudit.reports.interim_analysis import stops_of  # noqa: PLC0415 - imports torch
    from fedaudit.study import manifest, session  # noqa: PLC0415 - imports torch

    if not missing or not manifest.read(run).study.sequential:
        return missing
    return len(stops_of(*session.open_report(run))[1])
