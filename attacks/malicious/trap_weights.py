"""A block of rows that hardly any image activates (Boenisch et al., EuroS&P 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.malicious.block import (
    NEEDS,
    Block,
    ReadOut,
    block_state,
    find_block,
    put_in_front,
    read_batch,
)
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update

# Set by hand; what they reach is measured by benchmarks/malicious.py.
FACES = 256
"""Generated faces on which a row's scale is set."""
SAME = 1e-3
"""Root mean square pixel difference up to which two rows show one image."""
SIGNAL = 1e-6
"""Least share of the strongest row's bias gradient that counts as activated."""
SLACK = 0.02
"""How far beyond [0, 1] a pixel may lie before the image counts as a mixture."""


@dataclass(frozen=True, kw_only=True)
class TrapWeights:
    """Put a block in front whose rows are half negative, so that few images activate a row.

    Boenisch et al. (EuroS&P 2023): a random half of a row's weights is negative, the other half are
    the same sizes, shuffled and shortened by a factor just below 1. For most images the negative
    half wins and the row is silent; where exactly one image of the batch wins, the row's weight
    gradient ÷ its bias gradient is that image. Rows that several images activate hold mixtures.
    The columns of the block are random, so that two rows never hold the same mixture: what several
    rows agree on is an image.

    The paper traps a network's own first fully connected layer, made reachable by convolutions that
    pass the image through. A face network's has neither bias nor ReLU and follows
    normalizations, so the layer is put in front here, as it is by `imprint`.

    Of ORL faces at 32×32, about all of a batch of 8 and half of a batch of 32 come out exactly.

    Confirmed images come first; free places are filled with what single rows hold, as far as it
    looks like an image (it may be a mixture), then with even gray.

    Args:
        rows: K, number of trap rows; ≥ 1.
        activated: Share of generated faces that activates a row, in (0, 1); 1/N is best for
            batches of N.
        scale: Factor on the positive half where there is no generator, in (0, 1).
        strength: Typical size of a column's entries, × √K: how much the block disturbs the network
            and how large its gradients are; > 0.
        prior: Generator of the faces that set each row's factor (needs auxiliary faces); "" uses
            the one `scale` for all rows, as the paper does.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1];
            None keeps what the generator says is a face crop.
    """

    rows: int = 1024
    activated: float = 0.05
    scale: float = 0.97
    strength: float = 1e-2
    prior: str = "face_gan"
    crop: tuple[float, float, float, float] | None = None

    needs: ClassVar = NEEDS
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.MALICIOUS_SERVER

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", self.crop and tuple(self.crop))
        FaceGenerator(source=self.prior or "face_gan", crop=self.crop)  # refuses a bad crop
        if self.rows < 1 or self.strength <= 0:
            raise ValueError("rows must be at least 1, strength > 0")
        if not (0 < self.activated < 1 and 0 < self.scale < 1):
            raise ValueError("activated and scale must lie in (0, 1)")
        if not self.prior:
            object.__setattr__(self, "needs", type(self).needs - {Knowledge.AUXILIARY})

    def broadcast(
        self, model: ModelSpec, before: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[ModelSpec, Mapping[str, Tensor]]:
        """The honest model with the block in front."""
        spec, network = put_in_front(model, self.rows)
        _, block = find_block(network)
        size = block.read.in_features
        negative, positive = self._halves(size, generator)
        factor = self._factors(block.shape, negative, positive, generator)
        columns = torch.randn(size, self.rows, generator=generator)
        with torch.no_grad():
            block.read.weight.copy_(factor[:, None] * positive - negative)
            block.read.bias.zero_()
            block.write.weight.copy_(self.strength / self.rows**0.5 * columns)
        return spec, {**before, **block_state(network)}

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Read out what single images left in a row; nothing is random."""
        del generator
        return read_batch(seen, self._read, progress)

    def _halves(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sizes of the negative and of the positive weights, `[K, size]` each, ≥ 0, disjoint."""
        half = size // 2
        negative, positive = torch.zeros(self.rows, size), torch.zeros(self.rows, size)
        sizes = torch.randn(self.rows, half, generator=generator).abs() / size
        for row in range(self.rows):
            places = torch.randperm(size, generator=generator)
            negative[row, places[:half]] = sizes[row]
            positive[row, places[half : 2 * half]] = sizes[row]  # the places shuffle them
        return negative, positive

    def _factors(
        self,
        shape: tuple[int, int, int],
        negative: Tensor,
        positive: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """`[K]`, how much shorter the positive half of each row is."""
        if not self.prior:
            return torch.full((self.rows,), self.scale)
        faces = FaceGenerator(source=self.prior, crop=self.crop).load(shape, grayscale=False)
        images = faces.draw(FACES, generator).flatten(1)
        # An image activates a row whose factor exceeds the ratio of its halves.
        ratio = (images @ negative.T) / (images @ positive.T).clamp_min(1e-12)
        return ratio.quantile(self.activated, dim=0)

    def _read(self, block: Block, weights: Tensor, biases: Tensor, evidence: Evidence) -> ReadOut:
        """The rows that show one image, those first that several agree on."""
        del block
        active = (biases.abs() > SIGNAL * biases.abs().max()).nonzero().flatten()
        images = weights[active] / biases[active][:, None]
        beyond = torch.maximum(-images, images - 1).amax(1)
        images = images.clamp(0, 1)
        same = torch.cdist(images.double(), images.double()) < SAME * images.shape[1] ** 0.5
        # A group's strongest row speaks for it: rounding hurts it least.
        order = biases[active].abs().argsort(descending=True)
        groups: list[tuple[int, float, int]] = []
        free = beyond < SLACK
        for row in order.tolist():
            if free[row]:
                members = same[row] & free
                groups.append((int(members.sum()), float(beyond[row]), row))
                free &= ~members
        groups.sort(key=lambda group: (-group[0], group[1]))
        choice = torch.tensor([row for *_, row in groups[: evidence.count]], dtype=torch.int64)
        agreements = sum(size > 1 for size, *_ in groups[: evidence.count])
        rows = active[choice]
        return ReadOut(rows, images[choice].view(-1, *evidence.shape), biases[rows], agreements)
