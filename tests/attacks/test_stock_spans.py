"""Stock networks, which give photos away by the spans of their layers."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence.position_embedding import photo_by_position
from fedaudit.scoring.image_metrics import PSNR

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import drawn, gradients


def vision_transformer() -> nn.Module:
    """torchvision's, small, with a head that sends something back, behind a standardization."""
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=7)
    nn.init.normal_(network.heads.get_submodule("head").weight, std=0.1)
    return nn.Sequential(nn.BatchNorm2d(3, affine=False), network).eval()


def test_a_transformer_gives_its_photo_away_exactly() -> None:
    model, photo = vision_transformer(), drawn(1)
    rebuilt = fedaudit.attack(
        model, gradients(model, photo), "subspace_matching", image_shape=(3, 32, 32)
    )
    assert torch.allclose(rebuilt.images, photo, atol=2e-3)
    assert rebuilt.labels.tolist() == [0]
    assert rebuilt.objective < 1e-5


def test_a_batch_of_a_transformer_is_searched_for() -> None:
    model, photos = vision_transformer(), drawn(2)
    reading = SimpleNamespace(
        count=2, private=frozenset(), model=model, target=gradients(model, photos)
    )
    assert photo_by_position(reading) is None  # type: ignore[arg-type]


def of_other_signs(update: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of the same sizes, each with a sign by chance: zeros stay, and spans are others."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value * (2 * torch.randint(2, value.shape, generator=generator) - 1)
        for name, value in update.items()
    }


@pytest.mark.slow  # whole searches on a stock network
def test_a_stock_resnet18_gives_a_photo_away() -> None:
    """Far better than by spans that say nothing; `benchmarks/subspace.py` does it on faces."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=100).eval()
    axis = torch.linspace(-1, 1, 64)
    disc = torch.sigmoid(9 * (0.7 - (axis[None] ** 2 + axis[:, None] ** 2).sqrt()))
    colors = torch.tensor([0.8, 0.5, 0.3])[:, None, None]
    photo = (0.1 + disc * colors * (1 + 0.3 * torch.sin(9 * axis)[None, None])).clamp(0, 1)[None]
    loss = F.cross_entropy(model(photo), torch.tensor([3]))
    named = dict(model.named_parameters())
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    right, wrong = (
        fedaudit.attack(
            model,
            sent,
            "subspace_matching",
            image_shape=(3, 64, 64),
            settings={"steps": 100, "polish": 0, "mends": 0, "fading": 2.0},
        )
        for sent in (update, of_other_signs(update))
    )
    assert right.labels.tolist() == [3]
    assert right.objective < 0.1 * wrong.objective
    apart = PSNR()(photo, right.images) - PSNR()(photo, wrong.images)
    assert float(apart) > 8  # decibels; it was 11
