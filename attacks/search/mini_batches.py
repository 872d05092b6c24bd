"""Which photos shared a mini-batch, read off an update of several epochs by images nearly right.

Batch norm in training mode marks what a photo sends to a layer by the others of its mini-batch. So
of all ways to assign the images to an epoch's mini-batches, the true one explains best what the
update says of layers' inputs: images are exchanged in pairs as long as that gains. Local training
is then replayed on the images so assigned, which says where the weights were at each step
(Dimitrov et al., TMLR 2022, leave the order of an epoch open; here it is found).
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from fedaudit.attacks.evidence.followed_training import FollowedTraining
from fedaudit.attacks.evidence.labels.of_images import labels_of_images
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.gathering.evidence import Evidence

Batches = list[list[int]]

LAYERS = 3
"""Whose inputs tell how images are assigned: those of which the update says most."""
SWEEPS = 2
"""Over all pairs of an epoch, at most, before the next epoch and before weights are replayed."""
ROUNDS = 2
"""Of all epochs: with weights on the line to what was shared, then with replayed ones."""
LARGEST = 400
"""Exchanges to try in a sweep over an epoch, beyond which mini-batches are not searched for: each
costs a pass, and there are as many as pairs of images. Two mini-batches of eight have 65 (0.12 CPU
s each through a ResNet-18 at 64 px), four have 390, two of thirty-two over a thousand."""


def are_told_apart(evidence: Evidence) -> bool:
    """Whether images can say who shared a mini-batch: epochs are few and whole, and batches small.

    No image is looked at.
    """
    followed, count = evidence.followed, evidence.count
    if followed is None or not followed.is_told_apart(count):
        return False
    order = followed.order(count)
    sizes = [len(order[step]) for step in followed.epochs(count)[0]]
    return sum(one * other + 1 for one, other in combinations(sizes, 2)) <= LARGEST


def follow_steps(evidence: Evidence, images: Tensor) -> InputReader | None:
    """Reads the network as it was at each step, with the mini-batch that it saw.

    Args:
        evidence: Of an update of several steps.
        images: `[N, C, H, W]`, nearly the client's.

    Returns:
        None where the steps cannot be told apart: too many epochs or mini-batches, the last epoch
        cut short, or labels that are not known.
    """
    followed, count = evidence.followed, evidence.count
    if followed is None or not are_told_apart(evidence):
        return None
    order, weights, epochs = followed.order(count), followed.on_the_line(), followed.epochs(count)
    labels = labels_of_images(evidence, images).to(images.device)
    if bool((labels < 0).any()):
        return None
    for _ in range(ROUNDS):
        order = _assign(evidence, followed, weights, order, epochs, images)
        reader = followed.at(evidence.reader, weights, order)
        labels = labels_of_images(evidence, images, reader).to(images.device)
        weights = followed.replayed(images, labels, order)
    return followed.at(evidence.reader, weights, order)


def _assign(
    evidence: Evidence,
    followed: FollowedTraining,
    weights: Sequence[dict[str, Tensor]],
    order: Sequence[Sequence[int]],
    epochs: Sequence[range],
    images: Tensor,
) -> Batches:
    """The images of each step by which the update is explained best, by exchanges in an epoch."""
    reader = followed.at(evidence.reader, weights, order)
    spans = evidence.spans_within(reader)
    told = [span for span in spans if span.epochs == reader.epochs]
    told = sorted(told, key=lambda span: float(span.weights.sum()))[-LAYERS:]
    if not told:
        return [list(which) for which in order]
    steps = [
        _Step(moment, told, images, list(which))
        for (moment, _), which in zip(reader.moments, order, strict=True)
    ]
    for epoch in epochs:
        for _ in range(SWEEPS):
            if not _sweep(steps, epoch, told):
                break
    return [step.which for step in steps]


class _Step:
    """What a mini-batch sends to some layers."""

    def __init__(
        self, reader: InputReader, spans: Sequence[LayerSpan], images: Tensor, which: list[int]
    ) -> None:
        self.reader, self.spans, self.images, self.which = reader, spans, images, which
        with torch.no_grad():
            uses = reader.inputs([span.name for span in spans], images[which])
            self.rows = [span.rows(uses[span.name]) for span in spans]

    def with_images(self, which: list[int]) -> "_Step":
        """The same step, had it seen others of the images."""
        return _Step(self.reader, self.spans, self.images, which)


def _sweep(steps: list[_Step], epoch: range, spans: Sequence[LayerSpan]) -> bool:
    """Make the best exchange of each image with those of other mini-batches; whether any gains.

    Whole mini-batches are exchanged first: which of them was trained on before the other.
    """

    def distance(changed: dict[int, list[Tensor]]) -> float:
        parts = [changed.get(number, step.rows) for number, step in enumerate(steps)]
        rows = [torch.cat(several, 1) for several in zip(*parts, strict=True)]
        apart = [span.distance(own) for span, own in zip(spans, rows, strict=True)]
        return float(torch.stack(apart).mean())

    best, gained = distance({}), False

    def exchange(one: int, other: int, ways: Sequence[tuple[list[int], list[int]]]) -> None:
        """Take the best of these ways to assign images to two steps, if it is better than now."""
        nonlocal best, gained
        before = steps[one], steps[other]
        for mine, theirs in ways:
            tried = before[0].with_images(mine), before[1].with_images(theirs)
            apart = distance({one: tried[0].rows, other: tried[1].rows})
            if apart < best:
                best, gained = apart, True
                steps[one], steps[other] = tried

    for one, other in combinations(epoch, 2):
        if len(steps[one].which) == len(steps[other].which):
            exchange(one, other, [(steps[other].which, steps[one].which)])
        for place in range(len(steps[one].which)):
            mine, theirs = steps[one].which, steps[other].which
            exchange(one, other, [_swapped(mine, theirs, place, k) for k in range(len(theirs))])
    return gained


def _swapped(
    one: list[int], other: list[int], place: int, partner: int
) -> tuple[list[int], list[int]]:
    """Two lists with one item of each in the other's place."""
    mine, theirs = list(one), list(other)
    mine[place], theirs[partner] = theirs[partner], mine[place]
    return mine, theirs
