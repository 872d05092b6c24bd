"""Opacus' ε, as we state it, against dp-accounting, which shares no code with it."""

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedaudit.core.errors import ConfigError
from fedaudit.defenses.accounting import (
    Accountant,
    epsilon_of,
    laplace_epsilon,
    laplace_noise_for,
    noise_for,
)

ORDERS = [1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(12, 64)]
GRID = [
    (1.0, 1.0, 1),
    (2.0, 1.0, 4),
    (1.0, 0.01, 100),
    (0.7, 0.1, 20),
    (4.0, 0.5, 30),
    (1.2, 0.02, 200),
    (10.0, 1.0, 50),
]
DELTAS = (1e-5, 1e-3)


def event(noise: float, rate: float, steps: int) -> dp_accounting.DpEvent:
    gaussian = dp_accounting.GaussianDpEvent(noise)
    once = dp_accounting.PoissonSampledDpEvent(rate, gaussian) if rate < 1 else gaussian
    return dp_accounting.SelfComposedDpEvent(once, steps)


def by_rdp(noise: float, rate: float, steps: int, delta: float) -> float:
    accountant = RdpAccountant(ORDERS)
    accountant.compose(event(noise, rate, steps))
    return float(accountant.get_epsilon(delta))


def by_pld(noise: float, rate: float, steps: int, delta: float) -> float:
    """ε by the privacy loss distribution: tight, as PRV claims to be."""
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(event(noise, rate, steps))
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("spent", GRID)
def test_rdp_agrees_with_dp_accounting(spent: tuple[float, float, int], delta: float) -> None:
    # Their grids of Rényi orders differ, which moves ε by a few parts in a thousand.
    ours = epsilon_of((spent,), delta, "rdp")
    assert ours == pytest.approx(by_rdp(*spent, delta), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("spent", GRID)
def test_prv_agrees_with_the_privacy_loss_distribution(
    spent: tuple[float, float, int], delta: float
) -> None:
    ours, theirs = epsilon_of((spent,), delta, "prv"), by_pld(*spent, delta)
    # PRV's answer may lie above by its own error bound of 0.01, never below.
    assert theirs - 2e-3 <= ours <= theirs + 0.025
    assert ours < epsilon_of((spent,), delta, "rdp") * 1.001


def test_several_mechanisms_compose() -> None:
    spent = ((2.0, 1.0, 3), (1.0, 0.1, 10))
    accountant = RdpAccountant(ORDERS)
    for one in spent:
        accountant.compose(event(*one))
    assert epsilon_of(spent, 1e-5, "rdp") == pytest.approx(accountant.get_epsilon(1e-5), rel=5e-3)


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_without_noise_or_steps(accountant: Accountant) -> None:
    assert epsilon_of(((0.0, 1.0, 1),), 1e-5, accountant) == math.inf
    assert epsilon_of(((1.0, 1.0, 2), (0.0, 1.0, 1)), 1e-5, accountant) == math.inf
    assert epsilon_of(((0.0, 1.0, 0),), 1e-5, accountant) == 0
    assert epsilon_of((), 1e-5, accountant) == 0


@pytest.mark.parametrize(
    ("accountant", "rate", "steps"), [("rdp", 1.0, 20), ("rdp", 0.05, 50), ("prv", 1.0, 20)]
)
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_noise_for_an_epsilon_spends_it(
    epsilon: float, accountant: Accountant, rate: float, steps: int
) -> None:
    noise = noise_for(epsilon, 1e-5, steps=steps, sample_rate=rate, accountant=accountant)
    spent = epsilon_of(((noise, rate, steps),), 1e-5, accountant)
    assert 0.997 * epsilon <= spent <= epsilon
    check = by_rdp if accountant == "rdp" else by_pld
    assert check(noise, rate, steps, 1e-5) == pytest.approx(epsilon, rel=1e-2, abs=0.03)


def test_an_epsilon_that_no_noise_reaches() -> None:
    with pytest.raises(ConfigError, match=r"raise epsilon or delta"):
        noise_for(1e-6, 1e-9, steps=10**6, sample_rate=1.0, accountant="rdp")


def test_laplace_runs_by_hand() -> None:
    """Basic composition of few runs, advanced of many, and no gain above ε = 1 a run."""
    assert laplace_epsilon(0.5, 1e-5, 3) == (6.0, 0.0)
    assert laplace_epsilon(4.0, 1e-5, 2) == (0.5, 0.0)
    many = 0.01 * math.sqrt(2 * 1000 * math.log(1e5)) + 10 * (math.exp(0.01) - 1)
    assert laplace_epsilon(100.0, 1e-5, 1000) == pytest.approx((many, 1e-5))


@pytest.mark.parametrize(("epsilon", "steps"), [(1.0, 1), (1.0, 1000), (20.0, 4)])
def test_laplace_noise_is_the_least_that_suffices(epsilon: float, steps: int) -> None:
    noise = laplace_noise_for(epsilon, 1e-5, steps)
    assert laplace_epsilon(noise, 1e-5, steps)[0] <= epsilon * (1 + 1e-9)
    assert laplace_epsilon(0.999 * noise, 1e-5, steps)[0] > epsilon
