"""A small generator, scripted and exported to files."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Toy(nn.Module):
    """`[N, D]` → `[N, C, 8, 8]`, through `squash`."""

    def __init__(self, dim: int = 128, channels: int = 3, signed: bool = False) -> None:
        super().__init__()
        self.signed, self.channels = signed, channels
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(dim, channels * 64)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.layer(z).view(-1, self.channels, 8, 8)
        return x.tanh() if self.signed else x.sigmoid()


def script(model: nn.Module, path: Path, dim: int = 128) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model.eval(), torch.randn(2, dim)).save(path)  # type: ignore[no-untyped-call]
    return str(path)


def exported(model: nn.Module, path: Path) -> str:
    example = (torch.randn(2, 128),)
    program = torch.export.export(
        model.eval(), example, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, path)
    return str(path)
