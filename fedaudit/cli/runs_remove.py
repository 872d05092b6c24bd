"""`fedaudit runs rm`: remove run folders, or only what shows people in them."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fedaudit.cli.ending import OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say
from fedaudit.core.errors import UsageError


@click.command(
    epilog=examples(
        "fedaudit runs rm runs/first runs/second",
        "fedaudit runs rm runs/first --evidence --by 'A. Lee' --reason 'retention ended'",
        "fedaudit runs rm runs/first --evidence --by 'A. Lee' --reason 'consent withdrawn' \\\n"
        "      --key key.pem --yes",
        "fedaudit verify runs/first   # says what was removed, and that the rest holds",
        note="Files are unlinked, not overwritten: disks, snapshots and backups may keep them. "
        "Where that matters, run with --encrypt-evidence and destroy the key.",
    )
)
@click.argument("run", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--evidence",
    is_flag=True,
    help="Remove reconstructions, originals, templates of faces and pages with pictures; keep "
    "numbers, hashes and models.",
)
@click.option("--by", help="Of --evidence: who removes it.")
@click.option("--reason", help="Of --evidence: why.")
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of --evidence: your private Ed25519 key (PEM), to sign the record.  [default: unsigned]",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(
    *,
    run: tuple[Path, ...],
    evidence: bool,
    by: str | None,
    reason: str | None,
    key: Path | None,
    yes: bool,
) -> int:
    """Remove the run folders RUN, or with --evidence only what shows people in them.

    What --evidence removes is recorded in removal.json by its hashes, with your name, and the
    report is rendered again without pictures: `fedaudit verify` still holds, and says what is gone.
    """
    from fedaudit.reports.build import build_report  # noqa: PLC0415 - imports torch
    from fedaudit.study import removal  # noqa: PLC0415 - imports torch

    if evidence and not (by and reason):
        raise UsageError("--evidence needs --by and --reason: the record names who, and why.")
    if not evidence and (by or reason or key):
        raise UsageError("--by, --reason and --key are of --evidence: a run is removed unrecorded.")
    what = "what shows people in" if evidence else "all of"
    names = ", ".join(map(str, run))
    if not yes:
        click.confirm(f"remove {what} {shlex.quote(names)}?", abort=True, err=True)
    for folder in run:
        if not evidence:
            say(f"removed: {folder}, {removal.remove_run(folder) / 1e6:.1f} MB")
            continue
        entry = removal.remove_evidence(folder, by or "", reason or "", key)
        build_report(folder, "redacted")
        say(f"{folder}: {entry.sentence if entry else 'there was nothing left to remove'}")
    return OK
