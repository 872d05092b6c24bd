"""Verification against a brute-force ROC."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedaudit.federation.utility import verification


def brute_force(embeddings: Tensor, people: tuple[str, ...]) -> dict[str, float]:
    """Every pair, every threshold, in plain Python."""
    genuine: list[float] = []
    impostor: list[float] = []
    count = len(people)
    # One matrix product, as the implementation has: ties must be ties for both.
    scores = (embeddings @ embeddings.T).tolist()
    for i in range(count):
        for j in range(i + 1, count):
            (genuine if people[i] == people[j] else impostor).append(scores[i][j])
    wins = sum((g > f) + 0.5 * (g == f) for g in genuine for f in impostor)
    thresholds = [*genuine, *impostor, 2.0]
    accuracy = max(
        (sum(g >= t for g in genuine) / len(genuine) + sum(f < t for f in impostor) / len(impostor))
        / 2
        for t in thresholds
    )
    result = {
        "accuracy": accuracy,
        "auc": wins / len(genuine) / len(impostor),
        "pairs": float(len(genuine) + len(impostor)),
    }
    for name, far in (("1e-2", 1e-2), ("1e-3", 1e-3)):
        allowed = [t for t in thresholds if sum(f > t for f in impostor) <= far * len(impostor)]
        result[f"tar@{name}"] = max(sum(g > t for g in genuine) for t in allowed) / len(genuine)
    return result


def people_of(count: int, photos: int) -> tuple[str, ...]:
    return tuple(f"p{i}" for i in range(count) for _ in range(photos))


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(2, 6),
    photos=st.integers(2, 4),
    spread=st.floats(0.01, 5),
    coarse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_brute_force(
    seed: int, count: int, photos: int, spread: float, coarse: bool
) -> None:
    noise = torch.Generator().manual_seed(seed)
    people = people_of(count, photos)
    centers = torch.randn(count, 4, generator=noise).repeat_interleave(photos, 0)
    embeddings = centers + spread * torch.randn(len(people), 4, generator=noise)
    # Coarse embeddings make ties between scores.
    embeddings = embeddings.sign() / 2 if coarse else F.normalize(embeddings, dim=1)
    expected = brute_force(embeddings, people)
    assert verification(embeddings, people) == pytest.approx(expected, abs=1e-6)


def test_large_enough_for_a_far_of_one_in_a_thousand() -> None:
    noise = torch.Generator().manual_seed(0)
    people = people_of(15, 4)
    centers = torch.randn(15, 8, generator=noise).repeat_interleave(4, 0)
    embeddings = F.normalize(centers + 0.7 * torch.randn(60, 8, generator=noise), dim=1)
    assert verification(embeddings, people) == pytest.approx(brute_force(embeddings, people))


def test_perfect_and_useless_embeddings() -> None:
    people = people_of(4, 3)
    perfect = verification(torch.eye(4).repeat_interleave(3, 0), people)
    assert perfect["accuracy"] == perfect["auc"] == perfect["tar@1e-3"] == 1.0
    useless = verification(torch.ones(12, 1), people)
    assert useless["accuracy"] == useless["auc"] == 0.5
    assert useless["tar@1e-2"] == 0.0
