"""`fedaudit verify`: whether anything in a run folder was altered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import UsageError

if TYPE_CHECKING:
    from fedaudit.reports.verification import Verification

_SHOWN = 20


@click.command(
    epilog=examples(
        "fedaudit verify runs/first",
        "fedaudit verify runs/first --root 3b1f…   # as the auditor told it to you",
        "fedaudit verify runs/first/report.html",
        "fedaudit verify runs/first --page mailed.html",
        "fedaudit verify runs/first --json",
        note="Exit codes: 0 nothing was altered, 1 something was, 3 the folder has no list of "
        "hashes to check against, 4 not a run folder, or so damaged that nothing follows from it. "
        "Whoever can write the folder can write new hashes as well: compare the root with one that "
        "came another way. docs/security.md says more.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--root", metavar="SHA256", help="The root as you were told it; checked, too.")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of who signed the run off (PEM), as it came to you another way; checked, too.",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A page that left the folder, checked in place of that in it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def verify(
    *, run: Path, root: str | None, public_key: Path | None, page: Path | None, as_json: bool
) -> int:
    """Check that nothing in the run folder RUN was altered since its run ended.

    Every file is hashed and compared with the list that the run wrote, every cell with its own
    hash, and results.json and report.html with what follows from them. RUN may be the page in the
    folder, too. Nothing is written.
    """
    from fedaudit.reports import verification  # noqa: PLC0415 - imports torch

    if run.is_file():
        run, page = run.parent, page or run
        if not (run / "study.json").is_file():
            raise UsageError(
                f"{page} lies in no run folder, and alone shows nothing: whoever can write a page "
                f"can write another. Give the folder too: fedaudit verify RUN --page {page}"
            )
    answer = verification.verify(run, root, public_key, page)
    if as_json:
        say_json({"sound": answer.sound, **asdict(answer)})
    else:
        _say(answer, vouched=bool(root or public_key))
    if not answer.sound:
        return GATE
    return OK if answer.files else INCONCLUSIVE


def _say(answer: Verification, *, vouched: bool) -> None:
    differences = answer.differences
    for what, names in (
        ("altered", differences.altered),
        ("missing", differences.missing),
        ("added", differences.added),
    ):
        for name in names[:_SHOWN]:
            say(f"{what}: {name}")
        if len(names) > _SHOWN:
            say(f"{what}: {len(names) - _SHOWN} more")
    for sentence in (*list(answer.damaged.values())[:_SHOWN], *answer.faults):
        say(f"fault: {sentence}")
    for sentence in answer.unchecked:
        say(f"not checked: {sentence}")
    for sentence in answer.removed:
        say(f"removed: {sentence}")
    if answer.files:
        say(f"checked: {answer.files} files, results.json and report.html")
        say(f"root: {answer.root}")
    verdict = "this folder is not as its run left it"
    if answer.sound:
        verdict = "nothing was altered"
        if not vouched:  # whoever can write the folder can write the list
            verdict += (
                " since its list of hashes was written; who wrote that, the folder cannot say "
                "(--root, --public-key)"
            )
    say(verdict if answer.files or not answer.sound else "there was nothing to check against")
