"""Heads under which one image's gradient drowns all others: linear, and on unit vectors."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.models.class_head import ClassHead
from fedaudit.models.facenet import FaceNet, NormedEmbedding
from fedaudit.models.heads import CosineHead

# Set by hand; what they reach is measured by benchmarks/malicious.py.
DIRECTIONS = 32
"""Principal directions of their features that a random measurement is drawn from."""
SILENT = 30.0
"""Logit by which class fishing lowers its class."""
ASIDE = 0.2
"""Length of an embedding's other coordinates, to the one that fished faces share."""


@dataclass(frozen=True)
class FishingHead:
    """What the server sends in place of a head; arguments are those of `Fishing`.

    Each way gives parameters by name, from what generated faces send to the head.
    """

    mode: Literal["feature", "class"]
    target_class: int
    sharpness: float
    threshold: float

    def linear(
        self, head: ClassHead, rows: Tensor, inputs: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """All rows zero but row c; `inputs` `[F, D]` are what faces send to the head."""
        if head.bias is None:
            raise AttackError(
                f"fishing needs a head with a bias, and {head.name!r} has none: use imprint or "
                "trap_weights, or a network whose head has one."
            )
        weight = torch.zeros_like(rows)
        bias = weight.new_zeros(len(weight))
        direction = measure(inputs, generator)
        spread = (inputs @ direction).std()
        if self.mode == "feature":
            weight[self.target_class] = self.sharpness / spread * direction
            level = (inputs @ weight[self.target_class]).mean() + self.sharpness * self.threshold
        else:
            weight[self.target_class] = direction / spread
            level = (inputs @ weight[self.target_class]).max() + SILENT
        bias[self.target_class] = -level
        return {head.name: weight.T if head.transposed else weight, head.bias: bias}

    def margin(
        self, head: ClassHead, rows: Tensor, inputs: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """All rows equal but row c, their opposite."""
        unit = F.normalize(inputs, dim=1)
        axis = -unit.mean(0) if self.mode == "class" else measure(unit, generator)
        weight = -axis.expand_as(rows).clone()
        weight[self.target_class] = axis
        weight = weight / axis.norm()
        return {head.name: weight.T if head.transposed else weight}

    def margin_and_embedding(
        self, network: FaceNet, maps: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Likewise; in feature fishing the embedding's weights measure, as logits are bounded.

        Batch norm behind them is made to change nothing in evaluation mode.
        """
        head, embedding = network.head, network.embedding
        assert isinstance(head, CosineHead)
        encoder, named, replacement = embedding, "embedding", {}
        if isinstance(embedding, NormedEmbedding):
            encoder, norm, named = embedding.encoder, embedding.norm, "embedding.encoder"
            assert norm.running_mean is not None
            assert norm.running_var is not None
            replacement = {
                "embedding.norm.weight": (norm.running_var + norm.eps).sqrt(),
                "embedding.norm.bias": norm.running_mean,
                f"{named}.bias": torch.zeros_like(norm.running_mean),
            }
        assert isinstance(encoder, nn.Linear)
        if self.mode == "class":
            plain = ClassHead("head.weight", unit=True)
            sent = maps @ encoder.weight.T
            return replacement | self.margin(plain, head.weight, sent, generator)
        # Two coordinates fish: the shifted measurement, and the length it is compared with. The
        # others tell the images apart, which is how the labels are read.
        mean = maps.mean(0)
        along = mean / mean.square().sum()
        direction = measure(maps / (maps @ along)[:, None], generator)
        projections = (maps @ direction) / (maps @ along)
        shift = projections.mean() + self.threshold * projections.std()
        slope = self.sharpness / (2 * head.scale * projections.std())
        weight = encoder.weight - (encoder.weight @ mean)[:, None] * along
        rest = (maps @ weight[2:].T) / (maps @ along)[:, None]
        weight *= ASIDE / rest.norm(dim=1).mean()
        weight[0] = slope * (direction - shift * along)
        weight[1] = along
        rows = head.weight.new_zeros(head.weight.shape)
        rows[:, 0] = -1.0
        rows[self.target_class, 0] = 1.0
        return replacement | {
            f"{named}.weight": weight * encoder.weight.norm() / weight.norm(),
            "head.weight": rows,
        }


def measure(features: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction `[F]` in which generated faces spread evenly.

    The strongest alone is brightness, where generated faces differ most from real ones.
    """
    deviations = features - features.mean(0)
    _, sizes, directions = torch.linalg.svd(deviations, full_matrices=False)
    rank = min(DIRECTIONS, int((sizes > 1e-4 * sizes[0]).sum()))
    weights = torch.randn(rank, generator=generator).to(features) / sizes[:rank]
    return F.normalize(weights @ directions[:rank], dim=0)
