"""`fedaudit runs keygen`: a key for encrypted evidence."""

from pathlib import Path

import click

from fedaudit.cli.ending import OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say


@click.command(
    epilog=examples(
        "fedaudit runs keygen key.txt",
        "fedaudit run study.toml --evidence full --encrypt-evidence age1…   # what keygen printed",
        "fedaudit report runs/study --evidence full --identity key.txt --output faces.html",
        note="The file is the only thing that opens the pictures: keep it away from the machine "
        "that runs audits. age-keygen makes such files, too, and age opens sealed ones.",
    )
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def keygen(*, file: Path) -> int:
    """Write a new private key into FILE, and print its public part for --encrypt-evidence."""
    from fedaudit.files.sealed import make_identity  # noqa: PLC0415 - startup time

    say(make_identity(file))
    return OK
