"""Shapley values: what each player of a coalition adds, exactly for few, sampled for many.

Shapley (1953): a player's value is its marginal contribution v(S ∪ {i}) − v(S), averaged over all
orders in which the players may join. The values of all players add up to v(all) − v(nobody).
"""

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import TypeVar

import torch
from scipy.special import stdtrit

from fedaudit.core.errors import ConfigError
from fedaudit.core.measures import Estimate

P = TypeVar("P", bound=Hashable)
Value = Callable[[frozenset[P]], float]

MOST = 10
"""Players that `exact` takes: 2^10 coalitions."""


def coalitions(players: Sequence[P]) -> list[frozenset[P]]:
    """All 2^n coalitions of `players`, the smallest first."""
    sizes = range(len(players) + 1)
    return [frozenset(c) for k in sizes for c in itertools.combinations(players, k)]


def exact(players: Sequence[P], value: Value[P]) -> dict[P, float]:
    """Every player's value, from all 2^n coalitions, each asked for once.

    >>> exact("ab", lambda s: 1.0 * (len(s) == 2))
    {'a': 0.5, 'b': 0.5}

    Args:
        players: Up to `MOST`, all different.
        value: v(S) of every coalition, the empty one too.

    Raises:
        ConfigError: More players than `MOST`, or one twice.
    """
    _check(players)
    n = len(players)
    if n > MOST:
        raise ConfigError(
            f"{n} players have 2^{n} coalitions: exact Shapley values stop at {MOST} players. "
            "Join players into groups, or sample orders of joining."
        )
    look_up = cache(value)
    values = dict.fromkeys(players, 0.0)
    for coalition in coalitions(players):
        k = len(coalition)
        for player in players:
            if player not in coalition:
                weight = math.factorial(k) * math.factorial(n - k - 1) / math.factorial(n)
                values[player] += weight * (look_up(coalition | {player}) - look_up(coalition))
    return values


def sample_values(
    players: Sequence[P],
    game: Callable[[int], Value[P]],
    *,
    pairs: int,
    generator: torch.Generator,
) -> dict[P, Estimate]:
    """Every player's value from random orders of joining, in antithetic pairs, with intervals.

    Each pair is a random order and its reverse (Mitchell et al., "Sampling Permutations for Shapley
    Value Estimation", JMLR 2022): who joined early in one joins late in the other, which cancels
    most of what the position alone decides. Each pair's values add up to v(all) − v(nobody), so
    the means do. Intervals are Student's over the pairs, 95 %.

    Args:
        players: All different.
        game: `game(k)` is v of pair k. The same game for every k estimates its values; another one
            (other photos) estimates values that are averages over games, and the intervals hold
            both kinds of chance.
        pairs: Pairs of orders, at least 2.
        generator: Draws the orders.

    Raises:
        ConfigError: Fewer than two pairs, which have no interval, or a player twice.
    """
    rows: list[dict[P, float]] = []
    for k, pair in enumerate(order_pairs(players, pairs=pairs, generator=generator)):
        look_up = cache(game(k))
        row = dict.fromkeys(players, 0.0)
        for order in pair:
            for before, player in zip(coalitions_of(order), order, strict=False):
                row[player] += (look_up(before | {player}) - look_up(before)) / 2
        rows.append(row)
    return {player: interval([row[player] for row in rows]) for player in players}


def order_pairs(
    players: Sequence[P], *, pairs: int, generator: torch.Generator
) -> list[tuple[list[P], list[P]]]:
    """Random orders of joining, each with its reverse; see `sample_values`."""
    _check(players)
    if pairs < 2:
        raise ConfigError("sampled Shapley values need 2 pairs of orders or more: an interval does")
    draws = [torch.randperm(len(players), generator=generator).tolist() for _ in range(pairs)]
    orders = [[players[i] for i in draw] for draw in draws]
    return [(order, order[::-1]) for order in orders]


def coalitions_of(order: Sequence[P]) -> list[frozenset[P]]:
    """Coalitions in the order in which players join, from the empty one to all players."""
    return [frozenset(order[:k]) for k in range(len(order) + 1)]


def interval(values: Sequence[float]) -> Estimate:
    """Mean of independent draws (at least two) with Student's 95 % interval."""
    draws = torch.tensor(values, dtype=torch.float64)
    n, middle = len(values), float(draws.mean())
    half = float(stdtrit(n - 1, 0.975)) * float(draws.std()) / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, n, "Student's t over pairs of orders")


def _check(players: Sequence[Hashable]) -> None:
    if len(set(players)) < len(players):
        raise ConfigError("a player of a Shapley value stands twice in the list: name each once")
