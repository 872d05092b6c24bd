"""Grad-CAM finds what was planted, and nothing else."""

import pytest
import torch
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.scoring import embedder
from fedaudit.scoring.identity import Gallery
from fedaudit.why import regions
from fedaudit.why.gradcam import deepest_map, grad_cam


class Reds(nn.Module):
    """An embedder that looks at red alone: two channels, red and blue, of which one counts."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.size = size
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(images, self.size)
        pooled: Tensor = self.pool(self.maps(small)).flatten(1)
        return pooled


def planted(red: tuple[int, int], blue: tuple[int, int]) -> Tensor:
    """A black picture of 32 px with a red and a blue patch of 8 px."""
    image = torch.zeros(1, 3, 32, 32)
    for channel, (y, x) in ((0, red), (2, blue)):
        image[0, channel, y : y + 8, x : x + 8] = 1.0
    return image


def test_heat_is_where_the_answer_comes_from() -> None:
    network = Reds()
    image = planted(red=(0, 16), blue=(24, 0))
    heat = grad_cam(network, network.maps, image, lambda out: out[:, 0])
    assert heat.shape == (1, 32, 32)
    assert heat[0, 1:7, 17:23].sum() > 0.5 * heat.sum()
    assert heat[0, 20:, :12].max() == 0  # the blue patch is as bright, and says nothing
    other = grad_cam(network, network.maps, image, lambda out: out[:, 1])
    assert other[0, 25:31, 1:7].sum() > 0.5 * other.sum()


def test_what_speaks_against_the_answer_has_no_heat() -> None:
    network = Reds()
    heat = grad_cam(network, network.maps, planted((0, 16), (24, 0)), lambda out: -out[:, 0])
    assert heat.max() == 0


def test_heat_is_the_papers_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    last = nn.Linear(256, 3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), last)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2
    images = torch.rand(2, 3, 8, 8, generator=generator)
    heat = grad_cam(network, network[1], images, lambda out: out[:, 2])
    maps = network[1](network[0](images))
    # The network is linear behind the maps, so that ∂answer/∂map is its row.
    weights = last.weight[2].view(4, 8, 8).mean((1, 2))
    assert torch.allclose(heat, torch.relu((weights[:, None, None] * maps).sum(1)), atol=1e-6)
    assert all(p.grad is None for p in network.parameters())


def test_the_deepest_map_that_still_has_places() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten()
    )
    images = torch.zeros(1, 3, 32, 32)
    assert deepest_map(network, images) is network[1]
    assert deepest_map(network, images, least=4) is network[2]
    with pytest.raises(AttackError, match="20 places"):
        deepest_map(network, images, least=20)


def test_the_match_is_that_of_re_identification(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face whose left eye is red, and an embedder for which red is the person."""
    network = Reds(size=16)
    toy = embedder.Embedder(network.eval(), "toy")
    monkeypatch.setattr(regions, "load_embedder", lambda: toy)
    image = planted(red=(8, 4), blue=(24, 20))
    gallery = Gallery(
        people=("red", "blue"),
        templates=torch.eye(2),
        center=torch.tensor([0.1, 0.1]),
        photos=2,
        threshold=0.5,
        fmr=1e-3,
        impostor_pairs=1,
        ceiling_hits=0,
        ceiling_first=0,
        ceiling_n=0,
    )
    heat, layer = regions.match_heat(image, ("red",), gallery)
    assert layer == "maps"
    assert heat.shape == (1, 32, 32)
    assert heat[0, 8:16, 4:12].mean() > 5 * heat.mean()  # mirrored back to where it was
    assert regions._shares(heat)["eyes"] > 0.5
    assert sum(regions._shares(heat).values()) == pytest.approx(1.0)
