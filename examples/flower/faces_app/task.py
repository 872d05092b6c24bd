"""The network, the data, and a client's training: plain PyTorch that knows nothing of an audit."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.data.orl import orl

CLASSES = 40
SIZE = 32


class Net(nn.Module):
    """Three convolutions with GroupNorm, and a classifier of the flattened map."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, 32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(8, 64)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.norm3 = nn.GroupNorm(8, 64)
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, classes]` of images `[N, 3, 32, 32]` in [0, 1]."""
        x = F.gelu(self.norm1(self.conv1(images)))
        x = F.gelu(self.norm2(self.conv2(x)))
        x = F.gelu(self.norm3(self.conv3(x)))
        scores: Tensor = self.fc2(F.gelu(self.fc1(x.flatten(1))))
        return scores


@cache
def load_data(client: int, clients: int) -> tuple[Tensor, Tensor]:
    """The photos `[N, 3, 32, 32]` and labels of one client: every `clients`-th person is its."""
    faces = orl(size=SIZE)
    people = sorted(set(faces.people))
    labels = torch.tensor([people.index(person) for person in faces.people])
    mine = labels % clients == client
    return faces.images[mine], labels[mine]


def chosen(photos: int, steps: int, batch: int, round: int) -> list[int]:
    """Which of its photos a client trains on in a round: the next in line."""
    first = (round - 1) * steps * batch
    return [k % photos for k in range(first, first + steps * batch)]


def train(net: nn.Module, images: Tensor, labels: Tensor, *, steps: int, batch: int, lr: float,
          round: int) -> float:  # fmt: skip
    """SGD on the next photos in line; returns the last loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    loss = torch.tensor(0.0)
    indices = chosen(len(images), steps, batch, round)
    for step in range(steps):
        taken = indices[step * batch : (step + 1) * batch]
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images[taken]), labels[taken])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item()
