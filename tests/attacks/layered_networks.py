"""Networks of every kind of layer whose inputs are read, and their gradients."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.evidence.span_spectrum import find_spans


class Tokens(nn.Module):
    """Patches as tokens, self-attention with a fused projection, a tied layer, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 8, stride=8)
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)
        self.mlp = nn.Linear(48, 96)
        self.head = nn.Linear(96, 7)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        scores: Tensor = self.head(self.mlp(tokens).tanh().mean(1))
        return scores


def convolutions() -> nn.Module:
    """Groups, dilation, other paddings, a transposed layer, dropout, one layer used twice."""
    twice = nn.Conv2d(64, 64, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, groups=2, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(64, 64, 3, padding="same", dilation=2),
        nn.Tanh(),
        twice,
        nn.ReLU(),
        twice,
        nn.ConvTranspose2d(64, 32, 2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32 * 5 * 5, 7),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"tokens": Tokens, "convolutions": convolutions}


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    loss = F.cross_entropy(model(images), torch.arange(len(images)) % 7)
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def spans_of(name: str, count: int = 1) -> tuple[nn.Module, InputReader, tuple[LayerSpan, ...]]:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    reader = InputReader(model, (3, 32, 32), count)
    return model, reader, find_spans(reader, gradients(model.eval(), drawn(count)), clean=True)
