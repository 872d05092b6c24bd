"""The ten people of OpenPeople: batches of photos of two of them, and a judge who knows all."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from stock_clients import ATTACKED
from torch import Tensor

from fedaudit.data.face_set import FaceSet
from fedaudit.scoring.aligned_judge import sface


def batches(
    faces: FaceSet, size: int, count: int, seed: int, attacked: Sequence[str] | None = None
) -> Iterator[list[int]]:
    """`count` batches of `size` photos, of both people in turn; another order each seed."""
    generator = torch.Generator().manual_seed(seed)
    pair_of = attacked or ATTACKED
    own = [[i for i, p in enumerate(faces.people) if p == person] for person in pair_of]
    mixed = [[rows[k] for k in torch.randperm(len(rows), generator=generator)] for rows in own]
    queue = [row for several in zip(*mixed, strict=False) for row in several]
    for k in range(count):
        yield [queue[(k * size + i) % len(queue)] for i in range(size)]


class Judge:
    """SFace's first guess of ten."""

    def __init__(self, faces: FaceSet) -> None:
        self.people = sorted(set(faces.people))
        self.faces, self.embed = faces, sface().within(sface().frame(faces.images))
        self.embedded = self.embed(faces.images)

    def first(self, images: Tensor, rows: Sequence[int]) -> list[bool]:
        """For which of `images` the nearest mean, over all other photos, is their own person's."""
        owners = torch.tensor([self.people.index(person) for person in self.faces.people])
        hits = []
        for one, row in zip(self.embed(images), rows, strict=True):
            kept = torch.arange(len(owners)) != row
            means = [self.embedded[kept & (owners == k)].mean(0) for k in range(len(self.people))]
            scores = F.cosine_similarity(torch.stack(means), one[None])
            hits.append(bool(scores.argmax() == owners[row]))
        return hits
