"""The scores of the ATS search: what they rank, and by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedaudit.core.observation import ModelSpec
from fedaudit.defenses.ats import ATS, parse_policy
from fedaudit.defenses.ats_search import accuracy_score, privacy_score, random_policy, search
from fedaudit.models.build_network import build


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Scores w · x, for which gradients are known: (score's derivative) · x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.flatten(1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores.sum(1).mean()


def test_privacy_is_the_area_under_similarity() -> None:
    """One weight: gradients are sums of pixels, so cosines are signs: +1 for a bright image."""
    bright = torch.ones(2, 1, 4, 4)
    labels = torch.zeros(2, dtype=torch.long)
    assert privacy_score(Linear(), bright, labels, noise()) == pytest.approx(1.0)
    # −1 until the image weighs as much as the noise, whose mean is about 0.5: for half the way.
    score = privacy_score(Linear(), -0.5 * bright, labels, noise(), points=200)
    assert score == pytest.approx(0.0, abs=0.15)


def test_accuracy_counts_equal_answers(faces: Any) -> None:
    """Images with the same Jacobian have eigenvalues n and 0; independent ones have ones."""
    same = accuracy_score(Linear(), torch.rand(3, 1, 4, 4, generator=noise()))
    k = 1e-5
    # A constant Jacobian has no correlation at all: all eigenvalues are 0.
    assert same == pytest.approx(-3 * (math.log(k) + 1 / k), rel=1e-6)
    model = build(ModelSpec("face_pooled", {"classes": 5}))
    images = faces.images[[0, 50, 120, 333]]
    apart = accuracy_score(model, images)
    assert apart > accuracy_score(model, images[:1].expand(4, -1, -1, -1))
    assert model.training


def test_search_finds_policies_that_the_defense_takes(faces: Any) -> None:
    trained, fresh = (build(ModelSpec("small_cnn", {"classes": 4}), seed=s) for s in (1, 2))
    photos, labels = faces.images[[0, 50, 120, 333]], torch.arange(4)
    found, again = (
        search(trained, fresh, photos, labels, candidates=8, keep=3, generator=noise())
        for _ in range(2)
    )
    assert found == again
    assert len(found) == 3
    assert [one.privacy for one in found] == sorted(one.privacy for one in found)
    assert all(-1 <= one.privacy <= 1 and math.isfinite(one.accuracy) for one in found)
    defense = ATS(policies=tuple(one.policy for one in found))
    assert defense.facts().settings["policies"] == tuple(one.policy for one in found)


def test_random_policies_are_policies() -> None:
    drawn = [parse_policy(random_policy(3, noise(seed))) for seed in range(50)]
    assert {len(policy) for policy in drawn} == {1, 2, 3}
