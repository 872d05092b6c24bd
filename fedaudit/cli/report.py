"""`fedaudit report`: write the report of a run folder again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.options import EVIDENCE, examples, fail_on_option, output_file
from fedaudit.cli.say import say
from fedaudit.core.errors import ConfigError
from fedaudit.files.atomic import write_atomically

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence

_SHOWN = 5


@click.command(
    epilog=examples(
        "fedaudit report runs/first",
        "fedaudit report runs/first --evidence none --output public.html",
        "fedaudit report runs/first --fail-on high",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--evidence",
    type=click.Choice(EVIDENCE),
    default="redacted",
    show_default=True,
    help="What the report shows of faces; full needs a run that kept originals.",
)
@output_file("Also write the page to this file.")
@fail_on_option
def report(*, run: Path, evidence: Evidence, output: Path | None, fail_on: str | None) -> int:
    """Write results.json and report.html of the run folder RUN again.

    Cells that are missing or damaged are said not to have been tested.
    """
    from fedaudit.cli.conclusion import conclude, require_deployed  # noqa: PLC0415 - imports torch
    from fedaudit.study.session import open_report  # noqa: PLC0415 - imports torch

    _, manifest, stock = open_report(run)
    require_deployed(manifest.study, fail_on)
    if evidence == "full" and manifest.evidence != "full":
        raise ConfigError(
            f"{str(run)!r} was run with --evidence {manifest.evidence}, so it has no originals to "
            "show. Use --evidence redacted, or run the study with --evidence full in another "
            "folder."
        )
    for what, keys in (("missing", stock.missing), ("damaged", tuple(stock.damaged))):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            names = ", ".join(keys[:_SHOWN])
            say(f"note: {what}, so not tested: {names}{more}", err=True)
    undone = len(stock.missing) + len(stock.damaged)
    jobs = len(stock.done) + undone
    code = conclude(run, evidence, fail_on=fail_on, jobs=jobs, undone=undone)
    if output:
        write_atomically(output, (run / "report.html").read_bytes())
        say(f"copy: {output}")
    return code
