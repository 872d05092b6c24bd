"""`fedaudit dp`: is the claimed differential privacy there?"""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedaudit.cli.ending import GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import examples, say_code
from fedaudit.cli.say import say, say_json
from fedaudit.cli.terminal_table import show
from fedaudit.core.claims import Claim, epsilon
from fedaudit.core.printable import printable
from fedaudit.study.named_code import refuse_code

if TYPE_CHECKING:
    from fedaudit.captures.claims.claim_verdict import ClaimVerdict
    from fedaudit.study.canary_training import Seen, Unit
    from fedaudit.study.read_claims import ClaimReport

COUNT = click.IntRange(min=1, max=10**12)


@click.command(
    epilog=examples(
        "fedaudit dp capture",
        "fedaudit dp nvflare_job --parameters 7033290",
        "fedaudit dp flower_app --rounds 20",
        "fedaudit dp training.py --images 600 --batch-size 64 --epochs 1 --rounds 20",
        "fedaudit dp study.toml --canaries 1000",
        "fedaudit dp study.toml --canaries 300 --unit client",
        note="Exit codes: 0 all claims hold by their numbers, 1 one is contradicted, is labeled "
        "differential privacy and is none, or is exceeded by what canaries show, 2 usage, 3 no "
        "claim that can be judged. Files are read; nothing in a job or an app is imported or run.",
    )
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--rounds", type=COUNT, help="Rounds of training, where files do not say.")
@click.option("--clients", type=COUNT, help="Clients of the federation.")
@click.option("--parameters", type=COUNT, help="Numbers in the model, which SVTPrivacy counts.")
@click.option("--images", type=COUNT, help="Images of the client that has the fewest.")
@click.option("--batch-size", type=COUNT, help="Images of a local step.")
@click.option("--epochs", type=COUNT, help="Passes over a client's images in a round.")
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-5,
    show_default=True,
    help="δ at which ε is given where none is stated.",
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NAME=NUMBER",
    help="A setting that a file leaves to run time, such as epsilon=8; may be repeated.",
)
@click.option(
    "--canaries",
    type=click.IntRange(1, 1_000_000),
    help="Train PATH, a study, with so many canaries, and show what they show of ε.",
)
@click.option(
    "--seen",
    type=click.Choice(("updates", "model")),
    default="updates",
    show_default=True,
    help="What the attacker of the canaries has: each client's updates, or the final model alone.",
)
@click.option(
    "--unit",
    type=click.Choice(("image", "person", "client")),
    default="image",
    show_default=True,
    help="What each canary is; clients are for defenses that claim an ε for a client.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the canaries' coins.")
@click.option("--load-code", is_flag=True, help="Run the code that a study names.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def dp(
    *,
    path: Path,
    values: tuple[str, ...],
    canaries: int | None,
    seen: Seen,
    unit: Unit,
    seed: int,
    load_code: bool,
    as_json: bool,
    **size: Any,
) -> int:
    """Say what the differential privacy that PATH claims is worth: claim, verdict, what to change.

    PATH is a capture, a study, or the folder of an NVFlare job, a Flower app or a script that uses
    Opacus. Each protection in it is a guarantee, whose ε is worked out over all rounds, a
    heuristic, which has none, or a claim that its own numbers contradict. What is missing, and what
    is sent besides, is named.

    With --canaries a study's federation is trained, too: images whose gradient is known take part
    or not by a coin, and how well the updates give the coins away bounds ε from below. More shown
    than claimed means that the implementation does not do what it claims.
    """
    from fedaudit.captures.claims.stated_mechanism import RunSize  # noqa: PLC0415 - startup time
    from fedaudit.study.read_claims import read_claims  # noqa: PLC0415 - imports torch

    on_code = say_code if load_code else refuse_code
    if canaries is not None:
        stated = [name for name, value in size.items() if name != "delta" and value is not None]
        if stated or values:
            option = f"--{stated[0].replace('_', '-')}" if stated else "--set"
            raise click.UsageError(
                f"{option} states a claim over other data than the canaries', which train in the "
                "federation that the study plans. Set it there: [federation] in the study."
            )
        from fedaudit.cli.canaries import show_canaries  # noqa: PLC0415 - imports torch

        return show_canaries(
            path,
            canaries,
            delta=size["delta"],
            seed=seed,
            seen=seen,
            unit=unit,
            on_code=on_code,
            as_json=as_json,
        )
    report = read_claims(path, RunSize(**size), values=_numbers(values), on_code=on_code)
    if as_json:
        say_json(_plain(report))
    else:
        _show(report)
    return _code(report)


def _numbers(values: tuple[str, ...]) -> dict[str, float]:
    numbers = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            numbers[name.strip()] = float(number)
        except ValueError as error:
            raise click.UsageError(f"--set {value}: write NAME=NUMBER, as in epsilon=8") from error
    return numbers


def _code(report: ClaimReport) -> int:
    if any(verdict.grave for verdict in report.verdicts):
        return GATE
    verdicts = [verdict for verdict in report.verdicts if verdict.standing != "no claim"]
    return OK if verdicts and len(verdicts) == len(report.verdicts) else INCONCLUSIVE


def _show(report: ClaimReport) -> None:
    say(f"{printable(report.source)}: {_count(report.verdicts)}")
    if not report.verdicts:
        say(
            "No protection is stated, so nothing is claimed. To state one in a recording: "
            "fedaudit.recording(…, dp=DpClaim(…))."
        )
    else:
        say("")
        rows = [
            (
                verdict.mechanism,
                verdict.standing,
                _shortest(verdict),
                next(iter(verdict.changes), "nothing"),
            )
            for verdict in report.verdicts
        ]
        show(("claim", "verdict", "ε", "what to change first"), rows)
    for verdict in report.verdicts:
        say("\n".join(["", *_block(verdict)]))
    for problem in report.problems:
        say(f"cannot be read: {printable(problem)}")


def _shortest(verdict: ClaimVerdict) -> str:
    """The ε that one may sign for, of the weaker relation; "—" where there is none."""
    claims = verdict.over_rounds or verdict.a_round
    claims = tuple(claim for claim in claims if not claim.broken)
    if not claims:
        return "—"
    weakest = max(claims, key=lambda claim: claim.epsilon)
    rounds = "a round" if weakest.rounds == 1 else f"{weakest.rounds} rounds"
    return f"{_number(weakest)} per {weakest.unit}, {rounds}"


def _count(verdicts: tuple[ClaimVerdict, ...]) -> str:
    counts = Counter(verdict.standing for verdict in verdicts)
    return ", ".join(f"{count} {standing}" for standing, count in counts.items()) or "nothing"


def _block(verdict: ClaimVerdict) -> list[str]:
    lines = textwrap.wrap(printable(verdict.stated), 98, subsequent_indent="  ")
    lines += _wrap("at", verdict.place)
    lines += _wrap("verdict", f"{verdict.standing.upper()}{_size(verdict)}")
    for name, texts in (
        ("because", verdict.reasons),
        ("missing", (", ".join(verdict.missing),) if verdict.missing else ()),
        ("outside", tuple(f"{gap.what}: {gap.why}" for gap in verdict.outside)),
        ("change", verdict.changes),
    ):
        for number, text in enumerate(texts):
            lines += _wrap("" if number else name, text)
    return lines


def _size(verdict: ClaimVerdict) -> str:
    parts = []
    if verdict.claimed is not None:
        parts.append(f"claimed ε = {verdict.claimed:g}")
    if verdict.a_round and not all(claim.broken for claim in verdict.a_round):
        parts.append(f"a round gives {_each(verdict.a_round)}")
    if verdict.over_rounds and verdict.over_rounds[0].rounds != 1:
        parts.append(f"{verdict.over_rounds[0].rounds} rounds give {_each(verdict.over_rounds)}")
    return f": {'; '.join(parts)}" if parts else ""


def _each(claims: tuple[Claim, ...]) -> str:
    return " or ".join(
        f"ε = {_number(claim)} per {claim.unit} ({claim.neighbors}, δ = {claim.delta:g})"
        for claim in claims
    )


def _number(claim: Claim) -> str:
    return f"{claim.epsilon:,.0f}" if 1e3 <= claim.epsilon < 1e6 else epsilon(claim)


def _wrap(name: str, text: str) -> list[str]:
    first = f"  {name:10}"
    return textwrap.wrap(printable(text), 98, initial_indent=first, subsequent_indent=" " * 12)


def _plain(report: ClaimReport) -> dict[str, object]:
    from fedaudit.captures.claims.claim_verdict import MEANING  # noqa: PLC0415 - startup time

    return {
        "source": report.source,
        "verdicts": [
            {
                "mechanism": verdict.mechanism,
                "stated": verdict.stated,
                "place": verdict.place,
                "standing": verdict.standing,
                "meaning": MEANING[verdict.standing],
                "grave": verdict.grave,
                "claimed_epsilon": verdict.claimed,
                "a_round": [_plain_claim(claim) for claim in verdict.a_round],
                "over_rounds": [_plain_claim(claim) for claim in verdict.over_rounds],
                "reasons": list(verdict.reasons),
                "missing": list(verdict.missing),
                "outside": [{"what": gap.what, "why": gap.why} for gap in verdict.outside],
                "changes": list(verdict.changes),
            }
            for verdict in report.verdicts
        ],
        "problems": list(report.problems),
    }


def _plain_claim(claim: Claim) -> dict[str, object]:
    return {
        "epsilon": None if claim.epsilon == float("inf") else claim.epsilon,
        "delta": claim.delta,
        "unit": claim.unit,
        "neighbors": claim.neighbors,
        "rounds": claim.rounds,
        "accountant": claim.accountant,
        "sampling": claim.sampling,
        "covers": list(claim.covers),
    }
