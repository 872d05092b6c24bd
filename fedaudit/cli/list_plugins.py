"""`fedaudit list`: what can be named in a study."""

import click

from fedaudit.cli.catalog import FOR_PLUGINS, KINDS, names, summary
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import UnknownNameError


def _kind(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check that a kind is one of `KINDS`; an error names the closest."""
    if value is not None and value not in KINDS:
        raise UnknownNameError("kind", value, KINDS)
    return value


@click.command(
    "list", epilog=examples("fedaudit list", "fedaudit list attacks", "fedaudit list data --json")
)
@click.argument("kind", callback=_kind, required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def listing(*, kind: str | None, as_json: bool) -> None:
    """List what a study can name, with a line on each: one KIND, or all."""
    kinds = (kind,) if kind else KINDS
    rows = [(k, name, summary(k, name)) for k in kinds for name in names(k)]
    if as_json:
        keys = ("kind", "name", "summary")
        content = [dict(zip(keys, row, strict=True)) for row in rows]
        say_json(content)
        return
    width = max((len(name) for _, name, _ in rows), default=0)
    for one in kinds:
        indent = "" if kind else "  "
        if not kind:
            say(one + ("  (for plugins; not set in a study)" if one in FOR_PLUGINS else ""))
        for _, name, line in (row for row in rows if row[0] == one):
            say(f"{indent}{name:<{width}}  {line}".rstrip())
