"""`fedaudit gate` and `fedaudit accept`: whether a run may pass, and what is lived with."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import GATES, examples
from fedaudit.cli.say import say

if TYPE_CHECKING:
    from fedaudit.reports.gate import Bar

BARS = (*GATES, *(f"new-{level}" for level in GATES))
accepted_option = click.option(
    "--accepted",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("fedaudit-accepted.toml"),
    show_default=True,
    help="File of accepted findings.",
)


@click.command(
    epilog=examples(
        "fedaudit gate runs/now --fail-on high",
        "fedaudit gate runs/now --fail-on new-high --baseline runs/last",
        "fedaudit gate runs/now --max-reid 0.05",
        note="Exit codes: 0 passed, 1 failed, 3 nothing stands against the run, but its verdict is "
        "open (inconclusive, invalid, not tested). docs/gate.md has a workflow.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--fail-on",
    type=click.Choice(BARS),
    help="Fail on findings about what is deployed that are as grave as that; new-…: that the "
    "baseline does not have as grave.",
)
@click.option(
    "--max-reid",
    type=click.FloatRange(0, 1),
    help="Fail if the re-identification rate of what is deployed may be larger: the upper end of "
    "its interval counts, and not measured counts as larger.",
)
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="Run folder that new findings are new to."
)
@accepted_option
def gate(
    *,
    run: Path,
    fail_on: Bar | None,
    max_reid: float | None,
    baseline: Path | None,
    accepted: Path,
) -> int:
    """Hold the run folder RUN against bars, for continuous integration.

    Findings that `fedaudit accept` took do not fail it until their last day.
    """
    from fedaudit.reports.accepted import read_accepted  # noqa: PLC0415 - imports torch
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.gate import judge_run  # noqa: PLC0415 - imports torch

    answer = judge_run(
        results_of(run),
        fail_on=fail_on,
        max_reid=max_reid,
        baseline=None if baseline is None else results_of(baseline),
        accepted=read_accepted(accepted),
        today=date.today(),
    )
    for sentence in answer.failures:
        say(f"fails: {sentence}")
    for finding in answer.accepted:
        say(f"accepted: {finding.id} {finding.severity}: {finding.title} ({finding.fingerprint})")
    for fingerprint in answer.unused:
        say(f"note: {fingerprint} is accepted in {accepted} and was not found", err=True)
    if answer.failures:
        say("gate: failed")
        return GATE
    if not answer.settled:
        say("gate: open; nothing stands against the run, and its verdict settles nothing")
        return INCONCLUSIVE
    say("gate: passed")
    return OK


@click.command(
    epilog=examples(
        "fedaudit accept 2f699303074b5dc5 --reason 'synthetic data only' --owner 'A. Lee' \\\n"
        "      --expires 2027-03-31",
    )
)
@click.argument("fingerprint")
@click.option("--reason", required=True, help="Why it is lived with.")
@click.option("--owner", required=True, help="Who decided so.")
@click.option(
    "--expires",
    type=click.DateTime(("%Y-%m-%d",)),
    required=True,
    help="The last day on which the gate lets it pass.",
)
@accepted_option
def accept(*, fingerprint: str, reason: str, owner: str, expires: datetime, accepted: Path) -> int:
    """Accept the finding with this FINGERPRINT, so that the gate lets it pass until a day.

    The file is yours, to be kept under version control with the study.
    """
    from fedaudit.core.errors import ConfigError  # noqa: PLC0415 - startup time
    from fedaudit.reports.accepted import (  # noqa: PLC0415 - imports torch
        Acceptance,
        read_accepted,
        write_accepted,
    )

    if len(fingerprint) != 16 or set(fingerprint) - set("0123456789abcdef"):
        raise ConfigError(
            f"{fingerprint!r} is no fingerprint: 16 digits of 0–9 and a–f, as the report, the "
            "gate and SARIF print them."
        )
    if expires.date() < date.today():
        raise ConfigError(f"--expires {expires:%Y-%m-%d} is in the past.")
    if not reason.strip() or not owner.strip():
        raise ConfigError("--reason and --owner must say something: an auditor will read them.")
    acceptances = read_accepted(accepted)
    acceptances[fingerprint] = Acceptance(reason=reason, owner=owner, expires=expires.date())
    write_accepted(accepted, acceptances)
    say(f"accepted until {expires:%Y-%m-%d}: {fingerprint} (in {accepted})")
    return OK
