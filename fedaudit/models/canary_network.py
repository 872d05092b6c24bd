"""A network with a place for canaries: made-up images, each with a weight of its own.

A canary's gradient is one large number at its own weight and 0 everywhere else (the Dirac canary of
Nasr et al., USENIX Security 2023, arXiv 2302.07956): clipped, it is as long as a gradient may be,
and no other image's stands in its way. Whatever trains the network sees an ordinary module.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import wrap
from fedaudit.models.facenet import criterion_of
from fedaudit.models.named_network import create_network

WEIGHTS = "canaries.weight"
"""Name of the canaries' weights in an update, `[1, canaries]`."""
STRENGTH = 1000.0
"""Gradient norm of a canary before it is clipped: far above clipping norms in use."""


class CanaryNetwork(nn.Module):
    """A network whose scores have one more column, which canaries alone fill.

    Args:
        network: Images to scores `[N, classes]`.
        canaries: How many there may be.
        classes: Of the network; a canary's label is this number.
    """

    def __init__(self, network: nn.Module, canaries: int, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes
        self.canaries = nn.Linear(canaries, 1, bias=False)
        nn.init.zeros_(self.canaries.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, classes + 1]` of images and canaries `[N, C, H, W]`."""
        code = images[:, 0, 0, 0]
        number = (-1 - code).round().clamp(min=0).long()
        place = torch.nn.functional.one_hot(number, self.canaries.in_features).to(images.dtype)
        own = self.canaries(place * (STRENGTH * (code < 0))[:, None])
        return torch.cat((self.network(images.clamp(0, 1)), own), 1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over images of the network's loss, and over canaries of their own column."""
        canary = labels == self.classes
        if len(labels) == 1:  # one image by itself, as ghost clipping maps over them
            own = criterion_of(self.network)(scores[:, :-1], labels.clamp(max=self.classes - 1))
            one: Tensor = torch.where(canary[0], scores[0, -1], own)
            return one
        loss = scores[canary, -1].sum()
        images = ~canary
        if bool(images.any()):
            own = criterion_of(self.network)(scores[images, :-1], labels[images])
            loss = loss + own * images.sum()
        mean: Tensor = loss / max(1, len(labels))
        return mean


def canary_network(
    *, network: str, arguments: Mapping[str, Any], classes: int, image_size: int, canaries: int
) -> CanaryNetwork:
    """The network of a spec with room for canaries; arguments as of `wrap`."""
    inner = create_network(network, {**arguments, "classes": classes, "image_size": image_size})
    return CanaryNetwork(inner, canaries, classes)


def with_canaries(spec: ModelSpec, canaries: int) -> ModelSpec:
    """The spec of `canary_network` for the network that `spec` builds."""
    return wrap(spec, f"{__name__}:canary_network", {"canaries": canaries})


def canary_images(numbers: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """`[n, C, H, W]`: the canaries of these numbers. Their first value, −1 − number, is their name.

    >>> canary_images(torch.tensor([4]), (3, 2, 2))[0, 0, 0].tolist()
    [-5.0, 0.0]
    """
    images = torch.zeros(len(numbers), *shape)
    images[:, 0, 0, 0] = -1.0 - numbers
    return images
