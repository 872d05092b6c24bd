"""`fedaudit runs`: the run folders that are kept. One file a subcommand."""

import click

from fedaudit.cli.group import LazyGroup
from fedaudit.cli.options import examples

COMMANDS = {
    "ls": ("fedaudit.cli.runs_list:ls", "List the runs below a folder."),
    "show": ("fedaudit.cli.runs_list:show", "Show what one run says of itself."),
    "rm": ("fedaudit.cli.runs_remove:rm", "Remove runs, or only what shows people in them."),
    "keygen": ("fedaudit.cli.runs_keygen:keygen", "Make a key for encrypted evidence."),
    "repair": ("fedaudit.cli.runs_repair:repair", "Set aside what is damaged, list the rest."),
    "merge": ("fedaudit.cli.runs_repair:merge", "Join folders in which one study was run."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=examples(
        "fedaudit runs ls",
        "fedaudit runs ls audits --json",
        "fedaudit runs show runs/first",
        "fedaudit runs rm runs/first --evidence --by 'A. Lee' --reason 'retention ended'",
        "fedaudit runs repair runs/first",
        "fedaudit runs merge runs/all runs/laptop runs/server",
    ),
)
def runs() -> None:
    """List, show, remove, mend and join the runs that are kept."""
