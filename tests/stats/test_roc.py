from itertools import pairwise

import torch

from fedaudit.stats.intervals import auc
from fedaudit.stats.roc import roc, shuffled_auc, threshold_at


def test_threshold_lets_no_more_through_than_stated() -> None:
    draws = torch.Generator().manual_seed(0)
    false = torch.randn(500, generator=draws).round(decimals=1)  # with ties
    for fpr in (0.002, 0.01, 0.1, 0.5):
        threshold = threshold_at(false, fpr)
        assert threshold is not None
        assert float((false > threshold).double().mean()) <= fpr
    assert threshold_at(false, 0.001) is None


def test_roc_rises_and_has_the_same_area() -> None:
    draws = torch.Generator().manual_seed(1)
    true, false = torch.randn(300, generator=draws) + 1, torch.randn(300, generator=draws)
    points = roc(true, false, points=10_000)
    assert points == tuple(sorted(points))
    assert points[-1] == (1.0, 1.0)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert abs(area - auc(true, false)) < 0.005
    assert len(roc(true, false)) < 160


def test_shuffles_find_what_is_there_and_no_more() -> None:
    homes = torch.arange(15) % 3
    rejected = 0
    for seed in range(60):
        draws = torch.Generator().manual_seed(seed)
        scores = torch.randn(3, 30, generator=draws)
        rejected += shuffled_auc(scores, homes, draws, shuffles=99)[1] <= 0.05
    assert rejected <= 8  # 3 expected; more than 8 in 0.3 % of such tests
    scores[homes, torch.arange(15)] += 2
    own, p, shuffled = shuffled_auc(scores, homes, draws, shuffles=199)
    assert own == auc(scores[homes, torch.arange(15)], scores[:, 15:].flatten())
    assert own > shuffled > 0.5
    assert p == 1 / 200
