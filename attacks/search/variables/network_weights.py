"""The weights of a network that draws an image as what a search varies."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.search.scene import Scene, StageResult


@dataclass(frozen=True, kw_only=True)
class GeneratorWeights:
    """The generator's own weights, each image's apart (GIAS, Jeon et al., NeurIPS 2021).

    A variable is one vector: the latent that the stage before found, then all weights.
    """

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """The weights as they are, behind each image's latent."""
        weights = scene.faces.parameters(1)
        flat = torch.cat([value.detach()[0].flatten() for value in weights.values()])
        return [
            torch.cat([latent.detach().flatten(1), flat.to(latent).expand(len(latent), -1)], dim=1)
            for latent in before.variables
        ]

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the generator draws with these weights from these latents."""
        shape = torch.Size(scene.faces.network.latents.shape)
        like = {name: value[0] for name, value in scene.faces.parameters(1).items()}
        weights = [unflatten(row[shape.numel() :], like) for row in variable]
        latent = torch.stack([row[: shape.numel()].view(shape) for row in variable])
        stack = {name: torch.stack([one[name] for one in weights]) for name in like}
        return scene.faces.images_with(stack, latent)


@dataclass(frozen=True, kw_only=True)
class UntrainedWeights:
    """The weights of an untrained U-Net that draws from fixed noise, each image's apart.

    GION (Jeon et al. 2021, section 4.3; Ulyanov et al., CVPR 2018): no faces from elsewhere.

    Args:
        width: Channels of the finest scale.
    """

    width: int = 32

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """Random weights, another set for each image and restart."""
        del before
        starts = []
        for _ in range(scene.evidence.count):
            rows = [
                scene.untrained(self.width, scene.generator).parameters()
                for _ in range(scene.restarts)
            ]
            flat = [torch.cat([v.detach().flatten() for v in row.values()]) for row in rows]
            starts.append(torch.stack(flat).to(scene.like))
        return starts

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the network draws with these weights: in its own precision, not in the match's."""
        network = scene.fixed_untrained(self.width)
        like = network.parameters()
        own = variable.to(next(iter(like.values())))
        images = [network.images(unflatten(row, like)).to(variable) for row in own]
        return torch.cat(images).expand(-1, scene.evidence.shape[0], -1, -1)


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A vector cut into tensors of the names and shapes of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like.values()])
    return {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }
