"""`fedaudit schema`: what studies, results, captures and explanations hold, as JSON schema."""

import click

from fedaudit.cli.options import examples
from fedaudit.cli.say import say_json


@click.command(
    epilog=examples("fedaudit schema study > study.schema.json", "fedaudit schema results")
)
@click.argument("what", type=click.Choice(["capture", "results", "study", "why"]))
def schema(*, what: str) -> None:
    """Print the JSON schema of results.json, study files, a capture's capture.json or why.json."""
    if what == "results":
        from fedaudit.reports import serialization  # noqa: PLC0415 - imports torch

        content = serialization.schema()
    elif what == "capture":
        from fedaudit.captures.format import capture_manifest  # noqa: PLC0415 - imports pydantic

        content = capture_manifest.schema()
    elif what == "why":
        from fedaudit.reports import explanation, serialization  # noqa: PLC0415 - imports pydantic

        content = serialization.schema(explanation.Explanation)
    else:
        from fedaudit.study import study_file  # noqa: PLC0415 - imports torch

        content = study_file.schema()
    say_json(content)
