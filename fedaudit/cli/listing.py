"""`fedaudit list`: what can be named in a study."""

import json

import click

from fedaudit.cli.catalog import KINDS, names, summary
from fedaudit.cli.options import examples


@click.command(
    "list", epilog=examples("fedaudit list", "fedaudit list attacks", "fedaudit list data --json")
)
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def listing(*, kind: str | None, as_json: bool) -> None:
    """List what a study can name, with a line on each: one KIND, or all."""
    kinds = (kind,) if kind else KINDS
    rows = [(k, name, summary(k, name)) for k in kinds for name in names(k)]
    if as_json:
        keys = ("kind", "name", "summary")
        content = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    width = max((len(name) for _, name, _ in rows), default=0)
    for one in kinds:
        indent = "" if kind else "  "
        if not kind:
            click.echo(one)
        for _, name, line in (row for row in rows if row[0] == one):
            click.echo(f"{indent}{name:<{width}}  {line}".rstrip())
