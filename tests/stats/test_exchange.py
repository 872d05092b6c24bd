from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaudit.stats import exchange
from fedaudit.stats.exchange import EXACT, FEW, exchange_test


@pytest.mark.parametrize("n", [1, 4, 8, FEW])
@pytest.mark.parametrize("known", [0.1, 0.5, 0.8])
def test_two_draws_of_one_kind_are_told_apart_in_one_of_twenty(n: int, known: float) -> None:
    """A prior that knows each person with some probability, with the update and without."""
    random = np.random.default_rng(n)
    first, second = random.random((2, 2000, n)) < known
    gains = 0.8 * (first.astype(float) - second)
    found = np.array([exchange_test(row, 0.8) for row in gains])
    for level in (0.05, 0.25):
        assert (found <= level).mean() <= level + 0.02


@given(st.integers(FEW + 1, EXACT), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_every_exchange_has_its_rank(n: int, seed: int) -> None:
    """Uniform over all exchanges of sides, whatever the gains: that is what exact means."""
    gains = np.random.default_rng(seed).standard_cauchy(n)
    signs = np.array(list(product((-1, 1), repeat=n)))[:: 2 ** (n - 5)]
    found = np.array([exchange_test(row * gains, 1.0) for row in signs])
    sums = np.array(list(product((-1, 1), repeat=n))) @ gains
    assert found == pytest.approx([(sums >= s - 1e-9).mean() for s in signs @ gains])


def test_drawn_exchanges_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "DRAWN", 99)
    gains = np.random.default_rng(3).standard_normal((1000, EXACT + 4))
    found = np.array([exchange_test(row, 1.0) for row in gains])
    assert found.min() == 1 / 100
    assert 0.03 <= (found <= 0.05).mean() <= 0.07


def test_counts_of_few_units() -> None:
    """Wins less losses of n against heads of 2 n coins more than n; half a span is no win."""
    assert exchange_test([1.0, 1.0, 1.0], 1.0) == pytest.approx(1 / 64)
    assert exchange_test([1.0] * 3 + [0.0], 1.0) == pytest.approx(9 / 256)
    assert exchange_test([1.0] * 4 + [-1.0], 1.0) == pytest.approx((1 + 10 + 45) / 1024)
    assert exchange_test([0.51], 1.0) == pytest.approx(1 / 4)
    assert exchange_test([0.5], 1.0) == 1
    assert exchange_test([-1.0, -1.0], 1.0) == 1


def test_sums_of_many_units() -> None:
    assert exchange_test([0.1] * 10, 1.0) == pytest.approx(1 / 1024)
    assert exchange_test([0.0] * 10, 1.0) == 1
    assert exchange_test([0.1] * 30, 1.0) == pytest.approx(1 / 20_000)
