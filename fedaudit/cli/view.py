"""`fedaudit view`: many runs on one page, served to this computer alone or as a folder."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import OK
from fedaudit.cli.options import examples, shown_evidence
from fedaudit.cli.say import say
from fedaudit.core.errors import UsageError

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence


@click.command(
    epilog=examples(
        "fedaudit view runs",
        "fedaudit view runs --port 8080 --no-browser",
        "fedaudit view runs --bundle audits-2026",
        note="The page is served on 127.0.0.1 under an address that nobody can guess, and ends "
        "with Ctrl-C. A bundle is a folder of files: open its index.html, or give it away.",
    )
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default="runs")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port.  [default: any that is free]"
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the pages into this new folder instead.",
)
@shown_evidence("Of --bundle: what its pages show of faces.")
def view(
    *, directory: Path, port: int, no_browser: bool, bundle: Path | None, evidence: Evidence
) -> int:
    """Look at the runs in DIRECTORY and below it: list, filter, open, compare; nothing is written.

    `runs` by default.
    """
    if not directory.is_dir():
        raise UsageError(
            f"there is no folder {str(directory)!r}. `fedaudit view DIRECTORY` shows another one."
        )
    if bundle:
        from fedaudit.reports.archive_bundle import write_bundle  # noqa: PLC0415 - imports torch

        count = write_bundle(directory, bundle, evidence, lambda line: say(line, err=True))
        say(f"{count} report{'' if count == 1 else 's'}: {bundle / 'index.html'}")
        return OK
    from fedaudit.reports.archive_server import ArchiveServer  # noqa: PLC0415 - imports torch

    try:
        server = ArchiveServer(directory, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror}. Choose another --port, or leave it "
            "out."
        ) from error
    with server:
        say(f"{server.address}\nCtrl-C ends it.")
        if not no_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended", err=True)
    return OK
