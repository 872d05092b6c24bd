"""`fedaudit schema`: what a study or a results file holds, as JSON schema."""

import json

import click

from fedaudit.cli.options import examples


@click.command(
    epilog=examples("fedaudit schema study > study.schema.json", "fedaudit schema results")
)
@click.argument("what", type=click.Choice(["results", "study"]))
def schema(*, what: str) -> None:
    """Print the JSON schema of results.json, or of study files."""
    if what == "results":
        from fedaudit.reports import results  # noqa: PLC0415 - imports torch

        content = results.schema()
    else:
        from fedaudit import study_file  # noqa: PLC0415 - imports torch

        content = study_file.schema()
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))
