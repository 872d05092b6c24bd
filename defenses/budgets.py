"""What a client's guarantee is where several defenses give one."""

from dataclasses import replace

from fedaudit.types import Budget
from fedaudit.verbs import ClientReturn


def with_budget(returned: ClientReturn, budget: Budget | None) -> ClientReturn:
    """The return with one more mechanism's guarantee.

    Basic composition (Dwork & Roth 2014, theorem 3.16): ε and δ of mechanisms that protect the same
    unit add up. Where units differ no one (ε, δ) states both: the inner mechanism's is kept, as
    what comes after it only processes what it gave, and the other stands beside it in words.
    """
    if budget is None or returned.budget is None:
        return replace(returned, budget=budget or returned.budget)
    inner = returned.budget
    if inner.unit != budget.unit:
        beside = f"{budget.mechanism}: ε = {budget.epsilon:g}, δ = {budget.delta:g}, {budget.unit}"
        mechanism = f"{inner.mechanism}; beside it, {beside}"
        return replace(returned, budget=replace(inner, mechanism=mechanism))
    both = Budget(
        epsilon=inner.epsilon + budget.epsilon,
        delta=inner.delta + budget.delta,
        unit=inner.unit,
        mechanism=f"{inner.mechanism}; {budget.mechanism}",
        accountant="basic composition of: " + "; ".join((inner.accountant, budget.accountant)),
    )
    return replace(returned, budget=both)
