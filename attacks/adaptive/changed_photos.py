"""Defenses that change photos before they train, met by an attacker that changes its own alike.

What a defense draws (a shift, a contrast) differs in every round, and nobody has the client's draw.
But draws are few or low-dimensional, so the attacker tries some on generic faces and keeps, for
each photo, the one under which they come nearest to the update: common random numbers from then on,
in place of an expectation over draws (Athalye et al., ICML 2018).

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.models.soft_labels import probabilities

DRAWS = 16
"""Draws that are tried for a photo."""
NEAREST = 4
"""Generic faces, of all that are tried, whose mean distance a draw is judged by."""


@dataclass
class ChangedPhotos:
    """Photos as they trained, of `count` photos as they are searched for; each by itself.

    Attributes:
        draws: For each photo, the seed of what is drawn.
    """

    transforms: Sequence[ImageTransform]
    count: int
    draws: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.draws = [0] * self.count

    def __call__(
        self, images: Tensor, labels: Tensor, which: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """What trained in place of `images` `[n, C, H, W]`, the photos `which`, and its labels."""
        if not self.transforms:
            return images, labels
        pairs = [
            change(self.transforms, images[k : k + 1], labels[k : k + 1], self.draws[i])
            for k, i in enumerate(which)
        ]
        soft = any(own.dim() == 2 for _, own in pairs)
        width = max((own.shape[1] for _, own in pairs if own.dim() == 2), default=0)
        kinds = [probabilities(own, width) if soft else own for _, own in pairs]
        return torch.cat([image for image, _ in pairs]), torch.cat(kinds)

    def choose(self, distance: Callable[[Tensor, int], float], faces: Tensor) -> None:
        """Keep each photo's draw under which generic `faces` `[n, C, H, W]` come nearest.

        `distance` is of one face `[1, C, H, W]`, in the place of photo i, to what was shared.
        """
        if not self.transforms or not draws_differ(self.transforms, faces[:1]):
            return
        for i in range(self.count):
            values = []
            for seed in range(DRAWS):
                self.draws[i] = seed
                nearest = sorted(distance(face[None], i) for face in faces)[:NEAREST]
                values.append(sum(nearest) / len(nearest))
            self.draws[i] = min(range(DRAWS), key=values.__getitem__)


def change(
    transforms: Sequence[ImageTransform], images: Tensor, labels: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Images and labels after `transforms`, drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for transform in transforms:
        images, labels = transform(images, labels, generator)
    return images, labels


def draws_differ(transforms: Sequence[ImageTransform], image: Tensor) -> bool:
    """Whether the transforms draw anything."""
    nobody = torch.zeros(len(image), dtype=torch.long)
    one, two = (change(transforms, image, nobody, seed)[0] for seed in (0, 1))
    return not torch.equal(one, two)


def copies_of(transforms: Sequence[ImageTransform], shape: tuple[int, int, int]) -> int:
    """Images that are made of one photo."""
    with torch.no_grad():
        return len(
            change(transforms, torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long), 0)[0]
        )


def mixes(transforms: Sequence[ImageTransform], shape: tuple[int, int, int]) -> bool:
    """Whether photos of a batch show in each other's images, with whom nobody else knows."""
    generator = torch.Generator().manual_seed(0)
    pair, labels = torch.rand(2, *shape, generator=generator), torch.tensor([0, 1])
    other = torch.stack([pair[0], 1 - pair[1]])
    with torch.no_grad():
        one, two = (change(transforms, batch, labels, 1)[0] for batch in (pair, other))
    first = max(1, len(one) // 2)
    return not torch.equal(one[:first], two[:first])
