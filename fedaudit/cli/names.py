"""`fedaudit names`: who the people of a run are, to whoever has their photos."""

from dataclasses import replace
from pathlib import Path

import click

from fedaudit.cli.ending import OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import ConfigError


@click.command(
    epilog=examples(
        "fedaudit names runs/first",
        "fedaudit names runs/first --json",
        note="A run folder names nobody: people whose photos are not public have pseudonyms, which "
        "follow from their photos. Without the photos nobody can tell who is who.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def names(*, run: Path, as_json: bool) -> int:
    """Print whom each pseudonym in the run folder RUN stands for; reads the photos where they lie.

    Nothing is written.
    """
    from fedaudit.study import manifest  # noqa: PLC0415 - imports torch
    from fedaudit.study.named_code import code_in  # noqa: PLC0415 - imports torch
    from fedaudit.study.sources import names_of  # noqa: PLC0415 - imports torch

    study = manifest.read(run).study
    if code := code_in(replace(study, scenarios=())):
        raise ConfigError(
            f"the data set of {str(run)!r} is code ({', '.join(code)}), and what a run folder "
            "names is never run. Read its photos with fedaudit.data.pseudonyms in a program of "
            "your own."
        )
    people = names_of(study)
    if as_json:
        say_json(people)
    elif not people:
        say("the people of this run have the names that their public data set gives them")
    for one, name in () if as_json else people.items():
        say(f"{one}\t{name}")
    return OK
