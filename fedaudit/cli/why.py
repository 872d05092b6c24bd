"""`fedaudit why`: which layers, rounds, regions, shared things and clients give faces away."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import OK, interrupted
from fedaudit.cli.options import examples, say_code, shown_evidence
from fedaudit.cli.place_options import place_options
from fedaudit.cli.say import say
from fedaudit.study.study_file import load_study

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence
    from fedaudit.reports.explanation import Explanation, Part
    from fedaudit.study.executors.choice import Place

WHAT: tuple[Part, ...] = ("layers", "rounds", "regions", "artifacts", "clients")


def _parts(_: click.Context, __: click.Parameter, value: str) -> tuple[Part, ...]:
    choice = [part.strip() for part in value.split(",") if part.strip()]
    for part in choice:
        if part not in WHAT:
            raise click.BadParameter(f"{part!r} is none of {', '.join(WHAT)}.")
    if not choice:
        raise click.BadParameter(f"name one or more of {', '.join(WHAT)}.")
    return tuple(part for part in WHAT if part in choice)


def _numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of rounds such as 1,2,5,10.") from error
    if min(numbers) < 1:
        raise click.BadParameter("rounds are counted from 1, the fresh network.")
    return numbers


@click.command(
    epilog=examples(
        "fedaudit why study.toml --output runs/why",
        "fedaudit why study.toml --scenario trained --what layers,regions",
        "fedaudit why study.toml --what rounds --rounds 1,5,30 --targets 8",
        "fedaudit why study.toml --what clients --pairs 12",
        note="It attacks with the attacks of the scenario, hundreds of times: give it quick "
        "settings (examples/why.toml). What is finished is kept; the same command goes on, and "
        "other parts and scenarios of the same study can be added to the same folder. In the "
        "folder of a run of the study, its next report holds the explanation, too.",
    )
)
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: runs/why-STUDY]"
)
@click.option("--scenario", help="Scenario of the study.  [default: the first]")
@click.option(
    "--what",
    default=",".join(WHAT),
    show_default=True,
    callback=_parts,
    help="Parts, with commas between them.",
)
@click.option(
    "--targets",
    type=click.IntRange(2, 999),
    default=4,
    show_default=True,
    help="Attacked updates a setting.",
)
@click.option(
    "--rounds",
    default="1,2,5,10,20",
    show_default=True,
    callback=_numbers,
    help="Rounds that part `rounds` attacks; 1 is the fresh network.",
)
@click.option(
    "--pairs",
    type=click.IntRange(2, 9999),
    default=3,
    show_default=True,
    help="Pairs of orders that part `clients` samples.",
)
@shown_evidence("Only full keeps and shows faces.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@place_options(device=False)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def why(
    *,
    study: Path,
    output: Path | None,
    scenario: str | None,
    what: tuple[Part, ...],
    targets: int,
    rounds: tuple[int, ...],
    pairs: int,
    evidence: Evidence,
    seed: int,
    place: Place,
    quiet: bool,
) -> int:
    """Explain what a scenario of STUDY, a TOML file, leaks, into why.json and why.html.

    Layer by layer, round by round, region by region (Grad-CAM), and by Shapley values over what is
    shared (exact) and over clients (sampled, with intervals). Every number has its prior-only
    control and an interval.
    """
    plan = load_study(study, on_code=say_code)
    output = output or Path("runs") / f"why-{study.stem}"
    from fedaudit.cli.console import progress  # noqa: PLC0415 - imports torch
    from fedaudit.why.parts import Options, explain  # noqa: PLC0415 - imports torch

    numbers = ",".join(map(str, rounds))
    # The page's command leaves the folder out: the same answer has the same bytes.
    words = ["fedaudit", "why", study.name, "--what", ",".join(what)]
    words += ["--scenario", scenario] if scenario else []
    words += ["--targets", f"{targets}", "--rounds", numbers, "--pairs", f"{pairs}"]
    options = Options(
        parts=what,
        targets=targets,
        seed=seed,
        rounds=rounds,
        pairs=pairs,
        evidence=evidence,
        command=shlex.join([*words, "--seed", f"{seed}"]),
        place=place,
    )
    try:
        watch = partial(progress, quiet=quiet)
        explanation = explain(plan, scenario, output, options, watch)
    except KeyboardInterrupt:
        return interrupted()
    _say(explanation, output)
    return OK


def _say(explanation: Explanation, output: Path) -> None:
    from fedaudit.reports.explanation_wording import findings  # noqa: PLC0415 - slow

    for line in findings(explanation):
        say(line)
    for note in explanation.notes:
        say(f"note: {note}", err=True)
    say(f"page: {output / 'why.html'}")
    if (output / "report.html").exists():
        again = shlex.join(["fedaudit", "report", str(output)])
        say(f"note: `{again}` shows it in the report of this run, too", err=True)
