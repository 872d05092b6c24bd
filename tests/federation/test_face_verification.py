"""Verification against a brute force, and what several trainings come to together."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedaudit.core.measures import Utility
from fedaudit.federation.face_verification import Verification, verify_pairs
from fedaudit.federation.utility import accuracy_difference, pool_trainings
from fedaudit.stats.crossed import crossed_mean


def brute_force(embeddings: Tensor, people: tuple[str, ...]) -> Verification:
    """Pair by pair, in plain Python; at most ten people, so that each is a group of their own."""
    names = sorted(set(people))
    scores = (embeddings @ embeddings.T).double()
    pairs = [(int(i), int(j)) for i, j in combinations(range(len(people)), 2)]

    def score(pair: tuple[int, int]) -> float:
        return float(scores[pair])

    def genuine(pair: tuple[int, int]) -> bool:
        return people[pair[0]] == people[pair[1]]

    def without(*who: str) -> list[tuple[int, int]]:
        return [p for p in pairs if not {people[p[0]], people[p[1]]} & set(who)]

    def right(pair: tuple[int, int]) -> bool:
        others = without(people[pair[0]], people[pair[1]])
        true = sorted(score(p) for p in others if genuine(p))
        false = [score(p) for p in others if not genuine(p)]

        def balanced(t: float) -> float:
            return sum(x >= t for x in true) / len(true) + sum(x < t for x in false) / len(false)

        best = max(true, key=lambda t: (balanced(t), -t))
        lower = [x for x in (*true, *false) if x < best]
        threshold = (best + max(lower)) / 2 if lower else best
        return (score(pair) >= threshold) is genuine(pair)

    verdicts = {pair: right(pair) for pair in pairs}
    accuracies = []
    for name in names:
        mine = [p for p in pairs if name in {people[p[0]], people[p[1]]}]
        own, other = ([p for p in mine if genuine(p) is kind] for kind in (True, False))
        shares = (sum(verdicts[p] for p in part) / len(part) for part in (own, other))
        accuracies.append(sum(shares) / 2)
    tar = {}
    for far, share in (("1e-2", 1e-2), ("1e-3", 1e-3)):
        accepted: list[bool] = []
        for pair in filter(genuine, pairs):
            false = sorted(score(p) for p in without(people[pair[0]]) if not genuine(p))
            if len(false) * share < 3:
                break
            accepted.append(score(pair) > false[len(false) - 1 - int(share * len(false))])
        else:
            tar[far] = sum(accepted) / len(accepted)
    ours, theirs = ([score(p) for p in pairs if genuine(p) is kind] for kind in (True, False))
    wins = sum((g > f) + 0.5 * (g == f) for g in ours for f in theirs)
    return Verification(tuple(accuracies), tar, wins / len(ours) / len(theirs), len(pairs))


def people_of(count: int, photos: int) -> tuple[str, ...]:
    return tuple(f"p{i}" for i in range(count) for _ in range(photos))


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(4, 6),
    photos=st.integers(2, 4),
    spread=st.floats(0.01, 5),
    coarse=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_agrees_with_brute_force(
    seed: int, count: int, photos: int, spread: float, coarse: bool
) -> None:
    noise = torch.Generator().manual_seed(seed)
    people = people_of(count, photos)
    centers = torch.randn(count, 4, generator=noise).repeat_interleave(photos, 0)
    embeddings = centers + spread * torch.randn(len(people), 4, generator=noise)
    # Coarse embeddings make ties between scores.
    embeddings = embeddings.sign() / 2 if coarse else F.normalize(embeddings, dim=1)
    check(verify_pairs(embeddings, people), brute_force(embeddings, people))


def check(measured: Verification, expected: Verification) -> None:
    assert measured.accuracies == pytest.approx(expected.accuracies, abs=1e-9)
    assert measured.tar_at_far == pytest.approx(expected.tar_at_far)
    assert measured.auc == pytest.approx(expected.auc)
    assert measured.pairs == expected.pairs


def test_a_false_accept_rate_needs_pairs_that_can_set_it() -> None:
    noise = torch.Generator().manual_seed(0)
    people = people_of(9, 4)
    centers = torch.randn(9, 8, generator=noise).repeat_interleave(4, 0)
    embeddings = F.normalize(centers + 0.7 * torch.randn(36, 8, generator=noise), dim=1)
    measured = verify_pairs(embeddings, people)
    check(measured, brute_force(embeddings, people))
    assert set(measured.tar_at_far) == {"1e-2"}  # 448 impostor pairs without a person


def test_perfect_and_useless_embeddings() -> None:
    people = people_of(4, 3)
    perfect = verify_pairs(torch.eye(4).repeat_interleave(3, 0), people)
    assert perfect.accuracies == (1.0,) * 4
    assert perfect.auc == 1.0
    useless = verify_pairs(torch.ones(12, 1), people)
    assert useless.accuracies == (0.5,) * 4
    assert useless.auc == 0.5


def test_random_embeddings_are_worth_chance() -> None:
    """A threshold chosen on the pairs that it judges would give more than a half."""
    people = people_of(6, 5)
    accuracies: list[float] = []
    for seed in range(20):
        noise = torch.Generator().manual_seed(seed)
        embeddings = F.normalize(torch.randn(30, 16, generator=noise), dim=1)
        accuracies += verify_pairs(embeddings, people).accuracies
    assert sum(accuracies) / len(accuracies) == pytest.approx(0.5, abs=0.02)


def test_many_people_are_judged_in_ten_groups() -> None:
    noise = torch.Generator().manual_seed(1)
    people = people_of(23, 2)
    centers = torch.randn(23, 8, generator=noise).repeat_interleave(2, 0)
    measured = verify_pairs(
        F.normalize(centers + 0.3 * torch.randn(46, 8, generator=noise), dim=1), people
    )
    assert len(measured.accuracies) == 23
    assert min(measured.accuracies) > 0.5


# --- several trainings ----------------------------------------------------------------------------


def one_training(*accuracies: float, untrained: float = 0.5) -> Utility:
    before = (untrained,) * len(accuracies)
    return pool_trainings(
        [
            Utility(
                accuracy=crossed_mean([accuracies]),
                untrained=crossed_mean([before]),
                gain=crossed_mean([[a - untrained for a in accuracies]], low=-1),
                accuracies=(accuracies,),
                untrained_accuracies=(before,),
                tar_at_far={"1e-2": accuracies[0]},
                auc=0.9,
                pairs=900,
                rounds=12,
                seconds=30.0,
                bytes_per_client_round=1000,
                step_seconds=1.0,
            )
        ]
    )


def test_trainings_are_pooled_by_person() -> None:
    first, second = one_training(0.8, 0.9, 0.7), one_training(0.9, 0.9, 0.9)
    both = pool_trainings([first, replace_cost(second)], [second, second])
    assert both.accuracy.value == pytest.approx(0.85)
    assert both.accuracies == ((0.8, 0.9, 0.7), (0.9, 0.9, 0.9))
    assert both.gain.value == pytest.approx(0.35)
    assert both.tar_at_far["1e-2"] == pytest.approx(0.85)
    assert both.step_seconds == 1.0  # the first states the costs
    assert both.central is not None
    assert both.central.value == pytest.approx(0.9)
    assert "2 trainings" in both.accuracy.method
    assert "one training" in first.accuracy.method


def replace_cost(utility: Utility) -> Utility:
    return replace(utility, step_seconds=None)


def test_a_gain_must_exceed_its_interval() -> None:
    assert one_training(0.8, 0.82, 0.79, 0.81).helps
    assert not one_training(0.8, 0.4, 0.7, 0.45).helps
    assert not one_training(0.4, 0.42, 0.41, 0.4).helps


def test_defenses_are_compared_by_person_and_training() -> None:
    better, worse = one_training(0.8, 0.6, 0.9), one_training(0.75, 0.55, 0.85)
    difference = accuracy_difference(better, worse)
    assert difference is not None
    assert difference.low == pytest.approx(0.05)  # the same for everybody, whoever they are
    assert accuracy_difference(better, one_training(0.8, 0.6)) is None
