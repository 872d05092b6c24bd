"""Shapley values against the axioms that define them and against closed forms."""

import itertools
from collections.abc import Callable

import pytest
import torch

from fedaudit.core.errors import ConfigError
from fedaudit.core.seeds import generator_for
from fedaudit.why.shapley import coalitions, exact, interval, sample_values

Value = Callable[[frozenset[str]], float]
PLAYERS = ("a", "b", "c", "d", "e")


def random_game(seed: int) -> Value:
    """A value for every coalition, without any structure."""
    drawn = torch.rand(2 ** len(PLAYERS), generator=torch.Generator().manual_seed(seed))
    table = dict(zip(coalitions(PLAYERS), drawn.tolist(), strict=True))
    return table.__getitem__


def pairwise_game(seed: int) -> Value:
    """What each is worth, and what each two are worth together."""
    generator = torch.Generator().manual_seed(seed)
    worth = torch.randn(len(PLAYERS), len(PLAYERS), generator=generator)

    def value(coalition: frozenset[str]) -> float:
        inside = sorted(PLAYERS.index(p) for p in coalition)
        return float(worth[inside][:, inside].triu().sum()) if inside else 0.0

    return value


def by_orders(value: Value) -> dict[str, float]:
    """The definition: the mean marginal contribution over all 120 orders."""
    found = dict.fromkeys(PLAYERS, 0.0)
    orders = list(itertools.permutations(PLAYERS))
    for order in orders:
        for k, player in enumerate(order):
            before = frozenset(order[:k])
            found[player] += (value(before | {player}) - value(before)) / len(orders)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_exact_values_are_the_mean_over_all_orders(seed: int) -> None:
    assert exact(PLAYERS, random_game(seed)) == pytest.approx(by_orders(random_game(seed)))


def test_they_add_up_to_what_all_are_worth_beyond_nobody() -> None:
    value = random_game(7)
    total = value(frozenset(PLAYERS)) - value(frozenset())
    assert sum(exact(PLAYERS, value).values()) == pytest.approx(total)
    drawn = sample_values(PLAYERS, lambda _: value, pairs=3, generator=generator_for(0))
    assert sum(v.value for v in drawn.values()) == pytest.approx(total)


def test_who_adds_nothing_gets_nothing_and_who_adds_the_same_gets_the_same() -> None:
    base = random_game(1)

    def value(coalition: frozenset[str]) -> float:
        stands_in = coalition & {"a", "b"}  # a and b are interchangeable; e is a dummy
        return base(frozenset({"c"} if "c" in coalition else ())) * (1 + len(stands_in)) + 3.0 * (
            "d" in coalition
        )

    found = exact(PLAYERS, value)
    assert found["e"] == pytest.approx(0, abs=1e-12)
    assert found["a"] == pytest.approx(found["b"])
    assert found["d"] == pytest.approx(3.0)


def test_glove_game() -> None:
    """One left glove, two right ones: 2/3, 1/6, 1/6 (Shapley 1953's market, worked by hand)."""
    found = exact(("left", "r1", "r2"), lambda s: float("left" in s and len(s) > 1))
    assert found == pytest.approx({"left": 2 / 3, "r1": 1 / 6, "r2": 1 / 6})


def test_airport_game() -> None:
    """Costs of a shared runway (Littlechild & Owen 1973): each stretch is split by its users."""
    length = {"a": 1.0, "b": 3.0, "c": 6.0}
    found = exact("abc", lambda s: max((length[p] for p in s), default=0.0))
    assert found == pytest.approx({"a": 1 / 3, "b": 1 / 3 + 1, "c": 1 / 3 + 1 + 3})


def test_every_coalition_is_asked_for_once() -> None:
    asked: list[frozenset[str]] = []

    def value(coalition: frozenset[str]) -> float:
        asked.append(coalition)
        return float(len(coalition))

    exact(PLAYERS, value)
    assert len(asked) == len(set(asked)) == 32


def test_one_antithetic_pair_is_exact_where_only_pairs_interact() -> None:
    """Of two players each comes first once in an order and its reverse: nothing is left to chance.

    Independent orders would leave an interval here.
    """
    value = pairwise_game(4)
    drawn = sample_values(PLAYERS, lambda _: value, pairs=2, generator=generator_for(3))
    for player, expected in exact(PLAYERS, value).items():
        assert drawn[player].value == pytest.approx(expected, abs=1e-5)
        assert drawn[player].high - drawn[player].low < 1e-4


def test_intervals_cover_the_exact_value_about_as_often_as_they_say() -> None:
    value = random_game(11)
    truth = exact(PLAYERS, value)
    covered = []
    for seed in range(40):
        drawn = sample_values(PLAYERS, lambda _: value, pairs=8, generator=generator_for(seed))
        covered += [drawn[p].low <= truth[p] <= drawn[p].high for p in PLAYERS]
    assert 0.88 < sum(covered) / len(covered) <= 1.0


def test_games_that_differ_from_pair_to_pair_are_averaged() -> None:
    drawn = sample_values("ab", lambda k: lambda s: k * len(s), pairs=3, generator=generator_for(0))
    assert drawn["a"].value == pytest.approx(1.0)
    # Draws 0, 1, 2: Student's t with 2 degrees of freedom, 4.303 · 1 / √3.
    assert drawn["a"].high == pytest.approx(1 + 4.3027 / 3**0.5, abs=1e-3)


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0, 6.0])
    spread = torch.tensor([1.0, 2.0, 3.0, 6.0]).std().item()
    assert (found.value, found.n) == (3.0, 4)
    assert found.high == pytest.approx(3.0 + 3.18245 * spread / 2, abs=1e-4)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match="11 players"):
        exact(range(11), lambda s: 0.0)
    with pytest.raises(ConfigError, match="twice"):
        exact("aa", lambda s: 0.0)
    with pytest.raises(ConfigError, match="2 pairs"):
        sample_values("ab", lambda _: lambda s: 0.0, pairs=1, generator=generator_for(0))
