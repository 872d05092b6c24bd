"""The part of `fedaudit dp` that trains with canaries, and what it prints."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedaudit.cli.console import live, stderr
from fedaudit.cli.ending import GATE, OK
from fedaudit.cli.say import say, say_json
from fedaudit.cli.terminal_table import show
from fedaudit.core.claims import in_words
from fedaudit.core.errors import UsageError
from fedaudit.core.printable import printable
from fedaudit.study.canary_audit import audit_with_canaries
from fedaudit.study.canary_result import CanaryAudit
from fedaudit.study.canary_training import Seen, Unit
from fedaudit.study.study_file import load_study


def show_canaries(
    path: Path,
    canaries: int,
    *,
    delta: float,
    seed: int,
    seen: Seen,
    unit: Unit,
    on_code: Callable[[tuple[str, ...]], None],
    as_json: bool,
) -> int:
    """Train, print claimed beside shown, and return the exit code."""
    if not path.is_file():
        raise UsageError(f"{path}: canaries are for a study file, whose federation can be trained.")
    study = load_study(path, on_code=on_code)
    with live(stderr(), "training", 1.0) as update:

        def progress(what: str, number: int, rounds: int) -> None:
            update(
                number / rounds, f"{what}: round {number} of {rounds}", f"{what}: {number}/{rounds}"
            )

        audits = audit_with_canaries(
            study,
            canaries,
            delta=delta,
            seed=seed,
            seen=seen,
            unit=unit,
            before=lambda note: say(note, err=True),
            progress=progress,
        )
    if as_json:
        say_json([_plain(one) for one in audits])
    else:
        _show(audits)
    return GATE if any(one.faulty for one in audits) else OK


def _show(audits: tuple[CanaryAudit, ...]) -> None:
    rows = [
        (
            f"{one.scenario}, {one.defense}",
            "none" if one.claim is None else f"{one.claim.epsilon:.3g}",
            f"{one.shown.any_mechanism:.2f}",
            f"{one.shown.gaussian:.2f}",
            _verdict(one),
        )
        for one in audits
    ]
    columns = ("defense", "claimed ε", "shown at least", "Gaussian model", "verdict")
    show(columns, rows)
    for one in audits:
        say("")
        say(f"{printable(f'{one.scenario}, {one.defense}')}; each canary is {_canary(one)}")
        if one.claim is not None:
            say(f"  claimed   {printable(in_words(one.claim))}")
        eps = one.shown
        say(
            f"  shown     {eps.right} of {eps.guesses} guesses right on half of "
            f"{eps.canaries:,} canaries: ε ≥ {eps.any_mechanism:.2f} whatever the mechanism, "
            f"{eps.f_dp:.2f} if it is Gaussian DP"
        )
        say(
            f"            those in lie {eps.apart:.2f} standard deviations from those out: "
            f"ε ≥ {eps.gaussian:.2f} if Gaussian noise hides each by itself (model-based)"
        )
        say(f"            each with {eps.confidence:.0%} confidence, at δ = {eps.delta:g}")
        if (guess := one.estimate) is not None:
            say(
                f"  estimate  ε about {guess.value:.2f} ({guess.low:.2f} to {guess.high:.2f}), "
                f"from the cosines of {guess.n} canary clients (Andrew et al. 2023): no bound"
            )
        for number, cause in enumerate(one.causes):
            mark = "FOUND" if cause.present else "no"
            say(f"  {'' if number else 'causes':9} {mark:6}{cause.name}: {cause.evidence}")
        if not one.faulty:
            say(f"  power     {printable(one.power)}")


def _canary(one: CanaryAudit) -> str:
    """What each canary is, and so what the bounds are of."""
    if one.unit == "person":
        return f"a person of {one.photos} photos"
    return f"a whole {one.unit}" if one.unit == "client" else "one image"


def _verdict(one: CanaryAudit) -> str:
    if one.claim is None:
        return "no claim to hold it against"
    causes = ", ".join(cause.name for cause in one.causes if cause.present)
    if one.exceeded:
        return f"CRITICAL, above its claim {one.exceeded}: {causes or 'cause not known'}"
    return f"CRITICAL, not what it claims: {causes}" if causes else "nothing above the claim"


def _plain(one: CanaryAudit) -> dict[str, Any]:
    claim = one.claim
    return {
        "scenario": one.scenario,
        "defense": one.defense,
        "claimed_epsilon": None
        if claim is None or claim.epsilon == float("inf")
        else claim.epsilon,
        "unit": None if claim is None else claim.unit,
        "canary": _canary(one),
        "estimate": None if one.estimate is None else asdict(one.estimate),
        "rounds": None if claim is None else claim.rounds,
        "shown": asdict(one.shown),
        "exceeded": one.exceeded or None,
        "faulty": one.faulty,
        "verdict": _verdict(one),
        "causes": [asdict(cause) for cause in one.causes],
        "power": one.power,
    }
