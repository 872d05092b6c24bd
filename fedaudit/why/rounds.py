"""Round-wise leakage: what an update gives away as the network learns, and what it is worth."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from fedaudit.captures.shared_things import names_of
from fedaudit.core.errors import AttackError, ConfigError
from fedaudit.federation.utility import measure
from fedaudit.why.averages import leakage
from fedaudit.why.explanation_results import Round
from fedaudit.why.subject import Leak, Subject, all_of

ROUNDS = (1, 2, 5, 10, 20)
"""Audited rounds; the network has been trained for one round less."""


def explain(subject: Subject, rounds: Sequence[int] = ROUNDS) -> tuple[Round, ...]:
    """Attack the same clients and photos in each of these rounds.

    Args:
        subject: What is explained; its scenario's own round plays no part.
        rounds: 1-based and rising.
    """
    rows = []
    people = len(subject.gallery.people) if subject.gallery else 0
    for k, number in enumerate(rounds):
        audit: list[Leak] = []
        control: list[Leak] = []
        for target in range(subject.targets):
            subject.tell("rounds", k * subject.targets + target, len(rounds) * subject.targets)
            capture = subject.capture(target, number)
            whole = all_of(names_of(capture.seen.shared))
            found = subject.leak(capture, whole, target, number=number)
            base = subject.leak(capture, whole, target, number=number, role="prior_only")
            if found is None or base is None:
                raise AttackError("none of the scenario's attacks reads what is shared")
            audit.append(found)
            control.append(base)
        rows.append(Round(number, leakage(audit, control, people), _accuracy(subject, number)))
    subject.tell("rounds", len(rounds) * subject.targets, len(rounds) * subject.targets)
    return tuple(rows)


def _accuracy(subject: Subject, number: int) -> float | None:
    kind: TypeAdapter[float | None] = TypeAdapter(float | None)

    def make() -> float | None:
        try:
            worth = measure(
                subject.simulation, subject.state(number), rounds=number - 1, seconds=0.0
            )
        except ConfigError:  # not a face network: there is no verification
            return None
        return None if worth is None else worth.accuracy

    return subject.pieces.get(f"accuracy/r{number}", kind, make)
