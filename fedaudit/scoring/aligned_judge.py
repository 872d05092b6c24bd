"""Judges of identity that take faces aligned to the 112-pixel template: SFace, and a user's own.

SFace (Zhong et al. 2021) is a MobileNet of OpenCV's model zoo, 0.994 on LFW, in 8-bit weights. It
shares nothing with any audited model.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice
from fedaudit.core.source import FaceEmbedder
from fedaudit.data.alignment import TEMPLATE_SIZE
from fedaudit.files import asset_store
from fedaudit.models.onnx_network import load_onnx
from fedaudit.scoring.framing import Frame, locate, look
from fedaudit.scoring.identity import Embed, rgb

_BATCH = 16


@dataclass(frozen=True)
class AlignedJudge:
    """A recognition network for faces at the places of ArcFace's template.

    Attributes:
        network: `[N, 3, 112, 112]` RGB → features `[N, D]`; frozen, in evaluation mode.
        name: For reports.
        top: What white is to the network: 1 or 255.
    """

    network: nn.Module
    name: str
    top: float = 1.0

    def frame(self, photos: Tensor) -> Frame:
        """Where its square lies in photos `[N, 3, H, H]` of a set."""
        return locate(photos)

    def within(self, frame: Frame) -> Embed:
        """Unit vectors `[N, D]` of images `[N, 1 or 3, H, H]` of a set with that frame."""

        def embed(images: Tensor) -> Tensor:
            seen = look(rgb(images), frame, TEMPLATE_SIZE) * self.top
            with torch.no_grad():
                features = [self.network(part) for part in torch.split(seen, _BATCH)]
            return normalize(torch.cat(features), dim=1)

        return embed


@cache
def sface() -> AlignedJudge:
    """SFace from OpenCV's zoo, once a process; an `AssetError` where its weights are missing."""
    network = load_onnx(asset_store.path("sface"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return AlignedJudge(network, "SFace (OpenCV Zoo 2021dec, int8)", top=255.0)


def load_judge(choice: Choice) -> FaceEmbedder:
    """The judge that a study names: a registered one, or what a user's `module:factory` makes.

    A factory gives a `torch.nn.Module` for aligned faces, `[N, 3, 112, 112]` RGB in [0, 1] →
    `[N, D]`, or a judge that places faces by itself (`core.source.FaceEmbedder`).

    Raises:
        AssetError: Its weights are neither cached nor fetchable.
        ConfigError: What the factory makes is neither.
    """
    judge: Any = create("judges", choice.name, choice.settings)
    if isinstance(judge, nn.Module):
        return AlignedJudge(judge.eval().requires_grad_(False), choice.label)
    if not isinstance(judge, FaceEmbedder):
        raise ConfigError(
            f"judge {choice.name!r} makes {type(judge).__name__}, and needed is a torch.nn.Module "
            "that takes aligned faces [N, 3, 112, 112] in [0, 1], or a FaceEmbedder."
        )
    return judge
