"""`fedaudit sign`: say who stands for an audit, and sign it with a key of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from fedaudit.cli.options import examples
from fedaudit.cli.say import say


@click.command(
    epilog=examples(
        "fedaudit sign runs/now --system 'Face login, release 4' --auditor 'A. Lee, Audit Ltd' \\\n"
        "      --scope 'updates of one round' --custody 'Audit Ltd, vault 2' \\\n"
        "      --retention 'until 2031-12-31' --key key.pem",
        "openssl genpkey -algorithm ed25519 -out key.pem",
        "openssl pkey -in key.pem -pubout -out key.pub",
        "fedaudit verify runs/now --public-key key.pub",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--system", required=True, help="What was audited.")
@click.option("--auditor", required=True, help="Who stands for it.")
@click.option("--scope", required=True, help="What the audit covers, and what it does not.")
@click.option("--custody", required=True, help="Who keeps the run folder, and where.")
@click.option("--retention", required=True, help="How long it is kept.")
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Your private Ed25519 key (PEM).  [default: not signed]",
)
def sign(
    *,
    run: Path,
    system: str,
    auditor: str,
    scope: str,
    custody: str,
    retention: str,
    key: Path | None,
) -> int:
    """Put a sign-off into the run folder RUN, for this very state of it, and render its report.

    The sign-off names the root of the folder's hashes, and `fedaudit verify --public-key` notices
    what is altered later, if it was signed with a key. Without one, whoever alters the folder can
    write hashes and sign-off anew.
    """
    from fedaudit.reports.build import build_report  # noqa: PLC0415 - imports torch
    from fedaudit.study import sign_off  # noqa: PLC0415 - imports torch
    from fedaudit.study.session import open_report  # noqa: PLC0415 - imports torch

    _, manifest, _ = open_report(run)
    statement = {
        "system": system,
        "auditor": auditor,
        "scope": scope,
        "custody": custody,
        "retention": retention,
    }
    entry = sign_off.sign(run, statement, key)
    build_report(run, "full" if manifest.evidence == "full" else "redacted")
    how = f"signed with key {entry.key}" if entry.key else "not signed: no --key was given"
    say(f"sign-off of root {entry.root}; {how}")
    return 0
