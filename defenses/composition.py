"""What a client's guarantee is over a whole training, and where several defenses give one."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from fedaudit.core.claims import Budget
from fedaudit.core.client import ClientReturn
from fedaudit.core.protocols import Defense


@dataclass(frozen=True)
class Plan:
    """What of a federation's training decides how much privacy it spends.

    Attributes:
        rounds: In each of which every client takes part.
        steps: Local steps a round.
        sample_rate: Share of its images that a client's step takes, of the client with the fewest.
    """

    rounds: int
    steps: int
    sample_rate: float


@runtime_checkable
class Spends(Protocol):
    """A defense whose guarantee is spent over a training."""

    def composed(self, plan: Plan) -> Budget:
        """The guarantee of all rounds together."""


@runtime_checkable
class Planned(Protocol):
    """A defense with settings that follow from the planned training."""

    def planned(self, plan: Plan) -> Defense:
        """The same with these settings filled in."""


def with_budget(returned: ClientReturn, budget: Budget | None) -> ClientReturn:
    """The return with one more mechanism's guarantee."""
    return replace(returned, budget=together(returned.budget, budget))


def together(inner: Budget | None, outer: Budget | None) -> Budget | None:
    """The guarantee of two mechanisms; None where neither gives one.

    Basic composition (Dwork & Roth 2014, theorem 3.16): ε and δ of mechanisms that protect the same
    unit add up. Where units differ no one (ε, δ) states both: the inner mechanism's is kept, as
    what comes after it only processes what it gave, and the other stands beside it in words.
    """
    if inner is None or outer is None:
        return inner or outer
    if inner.unit != outer.unit:
        beside = f"{outer.mechanism}: ε = {outer.epsilon:g}, δ = {outer.delta:g}, {outer.unit}"
        return replace(inner, mechanism=f"{inner.mechanism}; beside it, {beside}")
    return Budget(
        epsilon=inner.epsilon + outer.epsilon,
        delta=inner.delta + outer.delta,
        unit=inner.unit,
        mechanism=f"{inner.mechanism}; {outer.mechanism}",
        accountant="basic composition of: " + "; ".join((inner.accountant, outer.accountant)),
    )
