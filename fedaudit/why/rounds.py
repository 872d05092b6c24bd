"""Round-wise leakage: what an update gives away as the network learns, and what it is worth."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fedaudit.core.errors import AttackError, ConfigError
from fedaudit.federation.utility import measure
from fedaudit.reports.explanation import Round
from fedaudit.why.explained_scenario import Measurement, Role, Subject
from fedaudit.why.leaks import Cut, Leak, leakage

ROUNDS = (1, 2, 5, 10, 20)
"""Audited rounds; the network has been trained for one round less."""


def measurements(subject: Subject, rounds: Sequence[int] = ROUNDS) -> list[Measurement[Any]]:
    """The same clients and photos, attacked in each of these rounds, and the accuracies."""
    jobs: list[Measurement[Any]] = [_accuracy(subject, number) for number in rounds]
    roles: tuple[Role, ...] = ("audit", "invented")
    targets = range(subject.targets)
    jobs += [_whole(subject, n, t, role) for role in roles for n in rounds for t in targets]
    return jobs


def explain(subject: Subject, rounds: Sequence[int] = ROUNDS) -> tuple[Round, ...]:
    """Leakage and accuracy in each of these rounds (1-based, ascending)."""
    rows = []
    for number in rounds:
        targets = range(subject.targets)
        audit = [_read(subject, number, target, "audit") for target in targets]
        control = [_read(subject, number, target, "invented") for target in targets]
        accuracy = subject.get(_accuracy(subject, number))
        rows.append(Round(number, leakage(audit, control, subject.people), accuracy))
    return tuple(rows)


def _read(subject: Subject, number: int, target: int, role: Role) -> Leak:
    leak = subject.get(_whole(subject, number, target, role))
    if leak is None:
        raise AttackError("none of the scenario's attacks reads what is shared")
    return leak


def _whole(subject: Subject, number: int, target: int, role: Role) -> Measurement[Leak | None]:
    """Everything that a target's client shares in a round."""
    return subject.leak(Cut(None), target, number=number, role=role)


def _accuracy(subject: Subject, number: int) -> Measurement[float | None]:
    take = partial(_measured_accuracy, number=number)
    return subject.measurement(f"accuracy/r{number}", float | None, take)


def _measured_accuracy(subject: Subject, number: int) -> float | None:
    try:
        worth = measure(subject.simulation, subject.state(number), rounds=number - 1, seconds=0.0)
    except ConfigError:  # not a face network: there is no verification
        return None
    return None if worth is None else worth.accuracy.value
