"""A block whose rows sort a batch by brightness, one image a bin (Fowl et al., ICLR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

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
from fedaudit.core.choices import check_choices
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update

# Set by hand; what they reach is measured by benchmarks/malicious.py.
FACES = 128
"""Generated faces whose brightness is measured."""
SIGNAL = 1e-5
"""Least share of the strongest bin's bias gradient that counts as an image; below is rounding."""
OUTLIER = 8.0
"""An occupied bin exceeds the median bin, which holds rounding or noise, by this factor."""


@dataclass(frozen=True, kw_only=True)
class Imprint:
    """Put a block in front whose rows all measure brightness, against ascending thresholds.

    Robbing the fed (Fowl et al., ICLR 2022): an image activates the rows whose thresholds lie
    below its brightness, so two neighboring rows differ by the images between their thresholds. If
    that is one image, the difference of their weight gradients is a multiple of it, and the
    difference of their bias gradients is the multiple. No search, and no limit on the batch other
    than that images must differ in brightness. The columns of the block are equal, hence every
    image weighs alike in all its rows.

    With several local steps the rows move between the steps, so that cumulative differences mix
    images; `mode = "separate"` uses rows that are flat outside their bin: one image drives one row
    only, and its change over all steps is still a multiple of the image. The change of the bias
    drowns in rounding then, so the multiple is taken from the threshold where the bias's is not
    within the bin. Of 32 ORL faces at 32×32, about 23 come out of one step in either mode; of 4
    (16) steps on 8 at a time, 10 to 17 (3 to 7) in cumulative and 18 to 23 in separate bins.

    What two images of one bin leave is their mixture, returned as it is. What is not read out is
    returned as even gray. An image has a label only where image and label explain the row's bias
    gradient, which proves that it is no mixture; after several steps, or clipping, none has.

    Args:
        bins: K, number of rows; the chance to be alone in a bin grows with it. ≥ 2.
        mode: "cumulative" (the paper's) or "separate" (its variant for several local steps).
        strength: Size of a column's entries: how far a row moves each pixel, and so how much the
            block disturbs the network and how large its gradients are; > 0.
        prior: Generator whose faces' brightness sets the thresholds (needs auxiliary faces); ""
            assumes a Gaussian instead.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1];
            None keeps what the generator says is a face crop.
        brightness: (mean, standard deviation) of a photo's mean pixel in [0, 1], for `prior = ""`.
    """

    bins: int = 512
    mode: Literal["cumulative", "separate"] = "cumulative"
    strength: float = 1e-3
    prior: str = "face_gan"
    crop: tuple[float, float, float, float] | None = None
    brightness: tuple[float, float] = (0.45, 0.12)

    needs: ClassVar = NEEDS
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.MALICIOUS_SERVER

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "crop", self.crop and tuple(self.crop))
        object.__setattr__(self, "brightness", tuple(self.brightness))
        FaceGenerator(source=self.prior or "face_gan", crop=self.crop)  # refuses a bad crop
        if self.bins < 2:
            raise ValueError("bins must be at least 2")
        if self.strength <= 0 or self.brightness[1] <= 0:
            raise ValueError("strength and the standard deviation of brightness must be > 0")
        if not self.prior:
            object.__setattr__(self, "needs", type(self).needs - {Knowledge.AUXILIARY})

    def broadcast(
        self, model: ModelSpec, before: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[ModelSpec, Mapping[str, Tensor]]:
        """The honest model with the block in front."""
        separate = self.mode == "separate"
        activation: Literal["relu", "step"] = "step" if separate else "relu"
        spec, network = put_in_front(model, self.bins, activation)
        _, block = find_block(network)
        low = self._thresholds(block.shape, generator)
        # A bin ends where the next one begins; the last is as wide as the one before.
        width = torch.diff(low, append=(2 * low[-1] - low[-2])[None])
        gain = 1 / width if separate else torch.ones_like(width)
        size = block.read.in_features
        pattern = torch.randn(size, generator=generator).sign()
        # Equal columns let differences of rows cancel; where rows are separate, opposite signs
        # keep the sum of all that are saturated small.
        signs = torch.randn(self.bins, generator=generator).sign() if separate else 1.0
        with torch.no_grad():
            block.read.weight.copy_((gain / size)[:, None].expand(-1, size))
            block.read.bias.copy_(-low * gain)
            block.write.weight.copy_(self.strength * pattern[:, None] * signs)
        return spec, {**before, **block_state(network)}

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Read the batch out of one update; nothing is random."""
        del generator
        return read_batch(seen, self._read, progress)

    def _thresholds(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """`[K]`, ascending; every bin is equally likely to hold a face."""
        normal: Tensor = torch.special.ndtri((torch.arange(self.bins) + 0.5) / self.bins)
        if not self.prior:
            mean, deviation = self.brightness
            return mean + deviation * normal
        faces = FaceGenerator(source=self.prior, crop=self.crop).load(shape, grayscale=False)
        brightness = faces.draw(FACES, generator).mean((1, 2, 3))
        # A smooth fit: quantiles of so few faces would leave gaps beyond the brightest one.
        return brightness.mean() + brightness.std() * normal

    def _read(self, block: Block, weights: Tensor, biases: Tensor, evidence: Evidence) -> ReadOut:
        """Occupied rows, at most N."""
        if self.mode == "cumulative":
            weights = -torch.diff(weights, dim=0, append=weights.new_zeros(1, weights.shape[1]))
            biases = -torch.diff(biases, append=biases.new_zeros(1))
        size = weights.norm(dim=1)
        enough = torch.maximum(OUTLIER * size.median(), SIGNAL * size.max())
        strongest = size.argsort(descending=True)[: evidence.count]
        rows = strongest[(size[strongest] > enough) & (size[strongest] > 0)].sort().values
        gain = block.read.weight.detach().sum(1)
        low = -block.read.bias.detach() / gain
        high = torch.cat([low[1:], low.new_tensor([float("inf")])])
        bright = weights[rows].mean(1) / biases[rows]
        # Where rounding or noise moved the bias, the bin itself says how bright the image is.
        inside = torch.minimum(torch.maximum(bright.nan_to_num(0.0), low[rows]), high[rows])
        images = weights[rows] * (inside / weights[rows].mean(1))[:, None]
        images = images.nan_to_num(0.0).view(-1, *evidence.shape)
        return ReadOut(rows, images, biases[rows], len(images))
