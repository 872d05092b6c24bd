"""`fedaudit report`: write the report of a run folder again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import OK
from fedaudit.cli.options import examples, fail_on_option, output_file, shown_evidence
from fedaudit.cli.say import say
from fedaudit.core.errors import ConfigError
from fedaudit.core.printable import first_few
from fedaudit.files.atomic import write_atomically

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence

_SHOWN = 5


@click.command(
    epilog=examples(
        "fedaudit report runs/first",
        "fedaudit report runs/first --evidence none --output public.html",
        "fedaudit report runs/first --fail-on high",
        "fedaudit report runs/first --evidence full --identity key.txt --output faces.html",
        "fedaudit report runs/first --pdf",
        "fedaudit report runs/first --evidence none --output public.pdf",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@shown_evidence("What the report shows of faces; full needs a run that kept originals.")
@click.option(
    "--identity",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the private key that opens encrypted evidence; the pictures go into --output "
    "alone.",
)
@output_file("Also write the page to this file; as a PDF where its name ends so.")
@click.option(
    "--pdf", "paper", is_flag=True, help="Also write report.pdf (pip install 'fedaudit[pdf]')."
)
@fail_on_option
def report(
    *,
    run: Path,
    evidence: Evidence,
    identity: Path | None,
    output: Path | None,
    paper: bool,
    fail_on: str | None,
) -> int:
    """Write results.json and report.html of the run folder RUN again.

    Cells that are missing or damaged are said not to have been tested.
    """
    from fedaudit.cli.conclusion import conclude, require_deployed  # noqa: PLC0415 - imports torch
    from fedaudit.reports.interim_analysis import stops_of  # noqa: PLC0415 - imports torch
    from fedaudit.study.session import open_report  # noqa: PLC0415 - imports torch

    folder, manifest, stock = open_report(run)
    require_deployed(manifest.study, fail_on)
    if evidence == "full" and manifest.evidence != "full":
        raise ConfigError(
            f"{str(run)!r} was run with --evidence {manifest.evidence}, so it has no originals to "
            "show. Use --evidence redacted, or run the study with --evidence full in another "
            "folder."
        )
    lacking = frozenset(stops_of(folder, manifest, stock)[1])
    missing = tuple(key for key in stock.missing if key in lacking)
    for what, keys in (("missing", missing), ("damaged", tuple(stock.damaged))):
        if keys:
            say(f"note: {what}, so not tested: {first_few(keys, _SHOWN)}", err=True)
    copy_is_pdf = output is not None and output.suffix.lower() == ".pdf"
    if identity and (paper or copy_is_pdf):
        raise ConfigError(
            "A page with pictures that were sealed is written as HTML: leave --pdf out, and name "
            "an --output that ends in .html."
        )
    if identity:
        return _unseal(run, evidence, identity, output)
    undone = len(missing) + len(stock.damaged)
    jobs = len(stock.done) + undone
    code = conclude(run, evidence, fail_on=fail_on, jobs=jobs, undone=undone)
    html = (run / "report.html").read_bytes()
    if paper or copy_is_pdf:
        from fedaudit.reports.pdf import pdf  # noqa: PLC0415 - an extra

        printed = pdf(html.decode())
        if paper:
            write_atomically(run / "report.pdf", printed)
            say(f"pdf: {run / 'report.pdf'}")
    if output:
        write_atomically(output, printed if copy_is_pdf else html)
        say(f"copy: {output}")
    return code


def _unseal(run: Path, evidence: Evidence, identity: Path, output: Path | None) -> int:
    """Write a page with the sealed pictures, and nothing into the run folder."""
    from fedaudit.reports.build import page, results_of  # noqa: PLC0415 - imports torch
    from fedaudit.study.session import open_report  # noqa: PLC0415 - imports torch

    if evidence != "full" or output is None:
        raise ConfigError("--identity needs --evidence full and --output, where the pictures go.")
    if output.resolve().is_relative_to(run.resolve()):
        raise ConfigError(
            f"{str(output)!r} lies in the run folder, whose pictures are sealed. Choose another "
            "--output."
        )
    folder, _, _ = open_report(run)
    with_key = replace(folder, identity=identity)
    write_atomically(output, page(with_key, results_of(run), "full"))
    say(f"page with pictures of people: {output}")
    return OK
