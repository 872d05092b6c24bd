"""`fedaudit members`: who is in the data of a recorded run."""

from dataclasses import asdict
from pathlib import Path

import click

from fedaudit.cli.ending import GATE, INCONCLUSIVE
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.cli.terminal_table import show
from fedaudit.core.printable import printable

ALPHA = 0.05
"""Share of those who are told that may be in nobody's data, as expected."""
ATTACKS = (
    *("FedMIA", "FedMIA, loss", "FedMIA, alignment", "loss", "gradient alignment"),
    *("LiRA, shadow clients", "RMIA, shadow clients"),
)


@click.command(
    epilog=examples(
        "fedaudit members capture --candidates asked --outsiders strangers",
        'fedaudit members capture --candidates asked --outsiders strangers --attack "loss"',
        note="Exit codes: 1 somebody is told to be in the data, 2 usage, 3 nobody is told, which "
        "does not say that nobody is in it.",
    )
)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "--candidates",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder a person who may be in the data; other photos than trained will do.",
)
@click.option(
    "--outsiders",
    type=click.Path(path_type=Path),
    required=True,
    help="The same of at least 19 people who are certainly not, as alike as can be had; 38 for "
    "LiRA and RMIA, half of whom train shadow clients.",
)
@click.option("--attack", type=click.Choice(ATTACKS), default=ATTACKS[0], show_default=True)
@click.option("--model", help="The network, where the capture does not name one of ours.")
@click.option("--load-code", is_flag=True, help="Run the code that the capture names.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def members(
    *,
    capture: Path,
    candidates: Path,
    outsiders: Path,
    attack: str,
    model: str | None,
    load_code: bool,
    as_json: bool,
) -> int:
    """Ask of each of the candidates whether they are in some client's data of a CAPTURE.

    The server sees each client's update in each round. A candidate's photos are held against all of
    them, and so are the outsiders': whoever stands out among the outsiders is told, with an exact
    p-value; of all who are told one in twenty may be wrong. Choose the attack before you look: the
    smallest of several p-values is none.
    """
    from fedaudit.captures.audit.recorded_membership import recorded_membership  # noqa: PLC0415
    from fedaudit.captures.format.capture_reader import StoredCapture  # noqa: PLC0415 - torch
    from fedaudit.study.named_code import look_for_code  # noqa: PLC0415 - imports torch

    look_for_code(model)
    results = recorded_membership(
        StoredCapture(capture),
        candidates,
        outsiders,
        attack=attack,
        model=model,
        allow_code=load_code,
    )
    members_found = [one for one in results if one.q_value <= ALPHA]
    if as_json:
        say_json([asdict(one) for one in results])
    else:
        rows = [
            (
                printable(one.person),
                printable(one.client),
                f"{one.p_value:.3g}",
                f"{one.q_value:.3g}",
                "in the data" if one.q_value <= ALPHA else "not told",
            )
            for one in sorted(results, key=lambda one: one.p_value)
        ]
        show(("person", "closest client", "p", "q", "verdict"), rows)
        say(f"{len(members_found)} of {len(results)} are told to be in the data, by {attack}.")
    return GATE if members_found else INCONCLUSIVE
