"""Batches of photos, and what a vision transformer's client sends of them."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fedaudit.attacks.evidence.feed_forward import FeedForward
from fedaudit.attacks.evidence.token_placing import PlacedTokens

SIZE = 24


def transformer() -> nn.Module:
    """torchvision's, small, 10 tokens an image, with a head that sends something back."""
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.VisionTransformer(SIZE, 8, 2, 4, 64, 256, num_classes=7)
    nn.init.normal_(network.get_parameter("heads.head.weight"), std=0.1)
    return network.eval()


def drawn(count: int) -> Tensor:
    """Smooth images, each of other colors."""
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (SIZE, SIZE), mode="bicubic", align_corners=True).clamp(0, 1)


def sent(model: nn.Module, photos: Tensor) -> dict[str, Tensor]:
    """A client's gradient."""
    loss = F.cross_entropy(model(photos), torch.arange(len(photos)))
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def reading(model: nn.Module, photos: Tensor, update: dict[str, Tensor]) -> Any:
    """What the closed form is given of the update."""
    return SimpleNamespace(
        count=len(photos),
        private=frozenset(),
        model=model,
        target=update,
        shape=tuple(photos.shape[1:]),
        like=photos,
    )


def tokens_of(model: nn.Module, layers: FeedForward, photos: Tensor) -> Tensor:
    """What enters the feed-forward part, `[N·T, D]`."""
    entered: list[Tensor] = []
    layers.inner.register_forward_pre_hook(lambda _, args: entered.append(args[0].detach()))
    model(photos)
    return entered[0].flatten(0, 1).double()


def grown(model: nn.Module) -> None:
    """Draw what begins next to nothing as large as training may make it."""
    torch.manual_seed(0)
    with torch.no_grad():
        nn.init.normal_(model.get_parameter("head.weight"), std=0.02)
        for name, p in model.named_parameters():
            if name.endswith((".gamma", ".gamma_1", ".gamma_2")):
                p.uniform_(0.05, 0.5)
            elif name in ("cls_token", "reg_token"):
                p.normal_(std=0.5)


def farthest(found: PlacedTokens | None, photos: Tensor) -> float:
    """The largest difference of a pixel, of the photo that is farthest from all that were found."""
    assert found is not None
    return float((found.images[:, None] - photos).abs().amax((2, 3, 4)).min(1).values.max())
