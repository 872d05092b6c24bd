"""What noise spends, by Opacus' accountants, and how much noise a stated ε needs."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from fedaudit.core.errors import ConfigError
from fedaudit.defenses.settings import require

Accountant = Literal["rdp", "prv"]
Spent = tuple[tuple[float, float, int], ...]
"""Mechanisms: noise over the L2 sensitivity, probability with which a unit takes part, steps."""


def require_noise(
    noise_multiplier: float | None, epsilon: float | None, delta: float, accountant: str
) -> None:
    """Refuse a noise and a guarantee out of range, or both at once, by `ValueError`."""
    if noise_multiplier is not None and epsilon is not None:
        raise ValueError("state noise_multiplier or epsilon, not both: each follows from the other")
    require((noise_multiplier or 0) >= 0, "noise_multiplier must be ≥ 0", noise_multiplier)
    require(epsilon is None or epsilon > 0, "epsilon must be > 0", epsilon)
    require(0 < delta < 1, "delta must lie in (0, 1)", delta)
    require(accountant in ("rdp", "prv"), "accountant must be 'rdp' or 'prv'", repr(accountant))


@lru_cache(maxsize=256)
def epsilon_of(spent: Spent, delta: float, accountant: Accountant) -> float:
    """ε of Gaussian mechanisms on Poisson samples, composed; infinity where one has no noise.

    Args:
        spent: Mechanisms, in any order.
        delta: δ at which ε is stated.
        accountant: "rdp": Rényi DP (Mironov 2017, arXiv 1702.07476), an upper bound; "prv":
            numerical composition (Gopi et al., NeurIPS 2021, arXiv 2106.02848), tight.
    """
    spent = tuple((noise, rate, steps) for noise, rate, steps in spent if steps)
    if not spent or any(noise == 0 for noise, *_ in spent):
        return float("inf") if spent else 0.0
    from opacus.accountants import create_accountant  # noqa: PLC0415 - slow

    counter = create_accountant(accountant)
    counter.history = list(spent)
    with _quiet():
        return float(counter.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_for(
    epsilon: float, delta: float, *, steps: int, sample_rate: float = 1.0, accountant: Accountant
) -> float:
    """Least noise that spends at most `epsilon`, to within 0.2 %; a `ConfigError` if none does."""
    from opacus.accountants.utils import get_noise_multiplier  # noqa: PLC0415 - slow

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


@lru_cache(maxsize=256)
def laplace_epsilon(noise: float, delta: float, steps: int) -> tuple[float, float]:
    """ε and δ of the Laplace mechanism of scale `noise` over the L1 sensitivity, run k `steps`.

    Basic composition, kε at δ = 0, or advanced composition (Dwork, Rothblum & Vadhan, FOCS 2010,
    theorem III.3), ε√(2k ln(1/δ)) + kε(e^ε − 1) at `delta`, whichever is less. Of a step ε is
    1 / noise.
    """
    if noise == 0 or steps == 0:
        return (float("inf") if steps else 0.0), 0.0
    one = 1 / noise
    basic = steps * one
    if one > 1:  # where e^ε may overflow, and advanced composition gains nothing
        return basic, 0.0
    tight = one * math.sqrt(2 * steps * math.log(1 / delta)) + basic * math.expm1(one)
    return (basic, 0.0) if basic <= tight else (tight, delta)


@lru_cache(maxsize=256)
def laplace_noise_for(epsilon: float, delta: float, steps: int) -> float:
    """Least scale over the L1 sensitivity that spends at most `epsilon` in `steps` runs."""
    low, high = 0.0, steps / epsilon  # what basic composition needs
    for _ in range(60):
        middle = (low + high) / 2
        enough = laplace_epsilon(middle, delta, steps)[0] <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus warns where the best Rényi order ends its grid, and of log(0) at sample rate 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
