"""What a claim's own mechanism shows against it, on made-up class embeddings and returns."""

from dataclasses import replace

import torch

from fedaudit.core.client import ClientReturn
from fedaudit.core.shared import Update
from fedaudit.defenses.chain import Chain
from fedaudit.defenses.dplc import DPLC
from fedaudit.defenses.none import NoDefense
from fedaudit.study.claim_holes import repeats, selection_holes


def group(count: int) -> torch.Tensor:
    """Class embeddings that lie close together."""
    draws = torch.Generator().manual_seed(0)
    return torch.tensor([1.0, 0, 0, 0]) + 0.05 * torch.randn(count, 4, generator=draws)


def test_a_cluster_at_its_threshold_tells_each_of_its_members() -> None:
    dplc = DPLC(min_size=4, max_clusters=1)
    (hole,) = selection_holes(dplc, ClientReturn((), {"head.weight": group(4)}))
    assert hole.startswith("4 class embeddings that agree are released as a center")
    assert "4 of their 4 neighbors" in hole
    assert "so are 4 of this client's own" in hole
    chained = Chain(of=({"name": "dplc", "min_size": 4, "max_clusters": 1},))
    (hole,) = selection_holes(chained, ClientReturn((), {"head.weight": group(5)}))
    assert "so are 0 of this client's own" in hole  # one to spare: released either way


def test_what_decides_nothing_by_size_has_no_such_hole() -> None:
    alone = DPLC(min_size=1, max_clusters=1)  # some center is released, whoever is there
    assert not list(selection_holes(alone, ClientReturn(())))
    assert not list(selection_holes(NoDefense(), ClientReturn(())))


def test_noise_that_repeats_is_seen() -> None:
    sent = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.0])}),))
    same = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.0])}),))
    other = ClientReturn((Update("delta", {"w": torch.tensor([1.0, 2.1])}),))
    assert repeats(sent, same)
    assert not repeats(sent, other)
    assert not repeats(sent, replace(sent, shared=()))
