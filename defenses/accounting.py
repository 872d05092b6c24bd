"""What noise spends, by Opacus' accountants, and how much noise a stated ε needs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from fedaudit.errors import ConfigError

Accountant = Literal["rdp", "prv"]
Spent = tuple[tuple[float, float, int], ...]
"""Mechanisms: noise over the L2 sensitivity, probability with which a unit takes part, steps."""


@lru_cache(maxsize=256)
def epsilon_of(spent: Spent, delta: float, accountant: Accountant) -> float:
    """ε of Gaussian mechanisms on Poisson samples, composed; infinity where one has no noise.

    Args:
        spent: What was run.
        delta: δ at which ε is stated.
        accountant: "rdp": Rényi DP (Mironov 2017, arXiv 1702.07476), an upper bound; "prv":
            numerical composition (Gopi et al., NeurIPS 2021, arXiv 2106.02848), tight.
    """
    spent = tuple((noise, rate, steps) for noise, rate, steps in spent if steps)
    if not spent or any(noise == 0 for noise, *_ in spent):
        return float("inf") if spent else 0.0
    counter = create_accountant(accountant)
    counter.history = list(spent)
    with _quiet():
        return float(counter.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_for(
    epsilon: float, delta: float, *, steps: int, sample_rate: float = 1.0, accountant: Accountant
) -> float:
    """Least noise that spends at most `epsilon`, by bisection to within 0.2 % of ε.

    Raises:
        ConfigError: No noise is large enough.
    """
    try:
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=sample_rate,
                    steps=steps,
                    accountant=accountant,
                    epsilon_tolerance=epsilon / 500,
                )
            )
    except ValueError as error:
        raise ConfigError(
            f"no noise keeps {steps} steps at sample rate {sample_rate:g} within ε = {epsilon:g} "
            f"at δ = {delta:g} by the {accountant} accountant: raise epsilon or delta, plan fewer "
            "rounds, or use accountant = 'prv'."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus warns where the best Rényi order ends its grid, and of log(0) at sample rate 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
