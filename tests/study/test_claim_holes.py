"""What a claim's own mechanism shows against it, on made-up class embeddings and returns."""

from dataclasses import replace

import torch

from fedaudit.core.client import ClientReturn
from fedaudit.core.shared import Update
from fedaudit.defenses.chain import Chain
from fedaudit.defenses.dplc import DPLC
from fedaudit.study.claim_holes import repeats, selection_holes


def group(count: int) -> torch.Tensor:
    """Class embeddings that lie close together."""
    draws = torch.Generator().manual_seed(0)
    return torch.tensor([1.0, 0, 0, 0]) + 0.05 * torch.randn(count, 4, generator=draws)


def test_a_cluster_at_its_threshold_tells_each_of_its_members() -> None:
    dplc = DPLC(min_size=4, max_clusters=1)
    (hole,) = selection_holes(dplc, ClientReturn((), {"head.weight": group(4)}))
    assert "of 4 neighboring sets" in hole
    assert "opposite) 4 release another number of centers than this client's 1" in hole
    chained = Chain(of=({"name": "dplc", "min_size": 4, "max_clusters": 1},))
    assert list(selection_holes(chained, ClientReturn((), {"head.weight": group(4)})))


def test_a_cluster_with_one_to_spare_is_released_either_way() -> None:
    dplc = DPLC(min_size=4, max_clusters=1)
    assert not list(selection_holes(dplc, ClientReturn((), {"head.weight": group(5)})))
    assert not list(selection_holes(dplc, ClientReturn(())))


def test_noise_that_repeats_is_seen() -> None:
    sent = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.0])}),))
    same = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.0])}),))
    other = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.1])}),))
    assert repeats(sent, same)
    assert not repeats(sent, other)
    assert not repeats(sent, replace(sent, shared=()))
