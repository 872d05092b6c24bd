"""A small network with all that files must keep, and the files."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

SHAPE = (3, 16, 16)


class Small(nn.Module):
    """Residual addition and ReLU in place, batch norm, a hidden layer, a head: as torchvision's."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(8 * 4 * 4, 16)
        self.fc2 = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        same = x
        x = self.norm(self.conv(x))
        x += same
        x = self.pool(self.relu(x))
        scores: Tensor = self.fc2(torch.sigmoid(self.fc1(x.flatten(1))))
        return scores


def small(classes: int = 10, seed: int = 0) -> Small:
    """In evaluation mode, its running statistics not those of the start."""
    torch.manual_seed(seed)
    network = Small(classes)
    network(torch.rand(8, *SHAPE))
    return network.eval()


def scripted(network: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(network), path)
    return path


def traced(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # group norm asks whether its input is large enough
        made = torch.jit.trace(network, torch.rand(2, *SHAPE))  # type: ignore[no-untyped-call]
        torch.jit.save(made, path)
    return path


def exported(network: nn.Module, path: Path, count: int = 2, free: bool = True) -> Path:
    free_count = ({0: torch.export.Dim("n")},) if free else None
    images = torch.rand(count, *SHAPE)
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=free_count), path)
    return path
