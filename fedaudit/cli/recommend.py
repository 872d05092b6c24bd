"""`fedaudit recommend`: the cheapest defenses of a run that were measured to be good enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json

if TYPE_CHECKING:
    from fedaudit.reports.recommending import Candidate, Recommendation


@click.command(
    epilog=examples(
        "fedaudit recommend runs/defenses --max-reid 0.05 --min-accuracy 0.9",
        "fedaudit recommend runs/defenses --max-reid 0.2 --min-accuracy 0.8 --json",
        note="Exit codes: 0 a defense was measured to satisfy both in every scenario, 3 some only "
        "by point estimate, 1 none does.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--max-reid",
    type=click.FloatRange(0, 1),
    required=True,
    help="Largest re-identification rate, a share; the upper end of its interval counts.",
)
@click.option(
    "--min-accuracy",
    type=click.FloatRange(0, 1),
    required=True,
    help="Least verification accuracy on held-out people, a share; 0.5 is chance.",
)
@click.option("--scenario", help="Only this scenario of the study.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def recommend(
    *, run: Path, max_reid: float, min_accuracy: float, scenario: str | None, as_json: bool
) -> int:
    """Name the cheapest defenses of the run folder RUN that were measured to keep both limits.

    Cheapest is least client time, then fewest bytes. What no attack that knows the defense has met
    is never recommended, nor is one whose training is not shown to beat an untrained network.
    Where none keeps both, the nearest are named. A defense under which the federation trains as
    it does already was measured in neither accuracy nor cost: it is not ranked. Neither option
    bounds ε: it is printed for the audited update, and for all rounds of the training whose
    accuracy stands there.
    """
    from fedaudit.core.errors import UnknownNameError  # noqa: PLC0415 - startup time
    from fedaudit.reports import recommending  # noqa: PLC0415 - imports torch
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch

    answers = recommending.recommend(results_of(run), max_reid=max_reid, min_accuracy=min_accuracy)
    names = [one.scenario for one in answers]
    if scenario is not None and scenario not in names:
        raise UnknownNameError("scenario", scenario, names, where=str(run))
    selection = [one for one in answers if scenario in {None, one.scenario}]
    if as_json:
        say_json([_plain(one) for one in selection])
    else:
        for one in selection:
            _say(one, max_reid, min_accuracy)
    return _code(selection)


def _code(answers: list[Recommendation]) -> int:
    standings = [{c.standing for c in one.candidates} for one in answers]
    if standings and all("measured" in one for one in standings):
        return OK
    if standings and all(one & {"measured", "by estimate only"} for one in standings):
        return INCONCLUSIVE
    return GATE


def _say(one: Recommendation, max_reid: float, min_accuracy: float) -> None:
    from fedaudit.reports.text import visible  # noqa: PLC0415 - imports torch

    limits = f"re-identification ≤ {max_reid:g}, accuracy ≥ {min_accuracy:g}"
    say(f"{visible(one.scenario)}: {limits}")
    if one.satisfied:
        say("  measured to satisfy both, the cheapest first:")
        for candidate in one.satisfied:
            say(f"    {_line(candidate)}")
    else:
        say("  no defense was measured to satisfy both. Nearest:")
        ranked = [c for c in one.candidates if c not in one.unranked]
        unfit = ("no gain", "not measured")
        near = [c for c in ranked if c.standing not in unfit][:3]
        apart = [c for c in ranked if c.standing in unfit][:5]
        for candidate in near:
            say(f"    {_line(candidate)} [{candidate.standing}]")
        # One list would call a leaky defense nearer than one under which nobody came back.
        if near and apart:
            say(
                "  apart from these, however little came back, as no use of training under them "
                "was shown:"
            )
        for candidate in apart:
            say(f"    {_line(candidate)} [{candidate.standing}]")
    if one.unranked:
        say("  not ranked:")
        for candidate in one.unranked:
            say(f"    {_line(candidate)} [{candidate.standing}]")


def _line(candidate: Candidate) -> str:
    from fedaudit.reports.text import visible  # noqa: PLC0415 - imports torch

    cost = "" if candidate.cost is None else f"; {candidate.cost:.2f} × the client's time"
    mark = " (the control: no defense)" if candidate.line.role == "control" else ""
    return visible(f"{candidate.line.defense}{mark}: {candidate.why}{cost}")


def _plain(one: Recommendation) -> dict[str, object]:
    return {
        "scenario": one.scenario,
        "satisfied": [c.line.defense for c in one.satisfied],
        "candidates": [
            {
                "defense": c.line.defense,
                "role": c.line.role,
                "standing": c.standing,
                "why": c.why,
                "client_seconds_ratio": c.cost,
            }
            for c in one.candidates
        ],
    }
