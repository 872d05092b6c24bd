"""Small networks, a photo of noise for them, and what a client sends."""

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)
LABELS = torch.tensor([3])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(6, 12, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(12 * 64, 10),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10))


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    loss = nn.functional.cross_entropy(model(images), labels)
    values = torch.autograd.grad(loss, list(model.parameters()))
    return dict(zip(dict(model.named_parameters()), values, strict=True))


def drawn(network: nn.Module, count: int = 1) -> Tensor:
    """Photos of noise; the network's weights are drawn before them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        nn.init.uniform_(parameter, -bound, bound, generator)
    return torch.rand(count, *SHAPE, generator=generator)
