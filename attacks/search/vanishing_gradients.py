"""Images whose own gradients vanish in a batch: counted, told, and not searched for.

A network in evaluation mode that is sure of a photo's label has nothing to learn of it, and sends
nothing that float32 would keep beside the others'. A search for as many images as the batch has
would leave one of them free, to explain whatever the others miss.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import NOT_RECOVERED, Reconstruction

AGREEING = 3
"""Layers that must say the same number."""


def count_contributing(leading: SpanMatching | None, seen: Observation) -> int | None:
    """How many images of the batch contribute to the update, where not all do; None otherwise.

    A layer whose gradient has as many rows as the batch has positions, or more, spans as many
    directions as those images send to it whose gradient is not lost beside the others'.

    Args:
        leading: What layers' inputs span.
        seen: Of one step that divides the sum over the images by their number.
    """
    if leading is None or seen.batch_size is None or seen.batch_size == 1 or not _is_mean(seen):
        return None
    evidence = leading.evidence
    if evidence.coupled or not evidence.adaptation.exact or evidence.adaptation.scaled:
        return None
    return _agreed(evidence.spans, seen.batch_size)


def _agreed(spans: Sequence[LayerSpan], count: int) -> int | None:
    """By most of the layers, where none says that more contribute."""
    whole = [span for span in spans if span.whole and span.basis.shape[0] == 1]
    said = [int((span.weights > 0).sum()) / span.positions for span in whole]
    most = max(said, default=0.0)
    agreeing = sum(one == most for one in said)
    settled = agreeing >= AGREEING and 2 * agreeing > len(said) and most.is_integer()
    return int(most) if settled and 0 < most < count else None


def _is_mean(seen: Observation) -> bool:
    """Whether the update is a multiple of the mean of the images' gradients, and nothing else."""
    update, training = seen.update, seen.training
    if update is None:
        return False
    if update.kind == "gradient":
        return True
    plain = training is not None and training.optimizer == "sgd" and training.steps == 1
    return plain and not (training.weight_decay or training.proximal)  # type: ignore[union-attr]


def of_contributing(seen: Observation, contributing: int) -> Observation:
    """The observation as of a batch of those that contribute; labels are to be read anew."""
    update, count = seen.update, seen.batch_size
    assert update is not None
    assert count is not None
    tensors = {name: tensor * (count / contributing) for name, tensor in update.tensors.items()}
    alone = replace(update, tensors=tensors, examples=contributing)
    training = seen.training and replace(seen.training, batch_size=contributing)
    return replace(seen, shared=(alone,), batch_size=contributing, labels=None, training=training)


def with_vanished(rebuilt: Reconstruction, seen: Observation) -> Reconstruction:
    """Even gray for the images of the whole batch that were not searched for, and a word on them.

    Where labels were granted, theirs are those that nobody else has.
    """
    assert seen.batch_size is not None
    vanished = seen.batch_size - len(rebuilt.images)
    labels = [-1] * vanished
    if seen.labels is not None:
        left = seen.labels.tolist()
        for label in rebuilt.labels.tolist():
            if label in left:
                left.remove(label)
        labels = left[:vanished]
    gray = rebuilt.images.new_full((vanished, *rebuilt.images.shape[1:]), NOT_RECOVERED)
    told = (
        f"the update is of {len(rebuilt.images)} of the {seen.batch_size} images: the network has "
        "nothing to learn of the others, or they are copies; they were not searched for, and stand "
        "as even gray"
    )
    return replace(
        rebuilt,
        images=torch.cat([rebuilt.images, gray]),
        labels=torch.cat([rebuilt.labels, rebuilt.labels.new_tensor(labels)]),
        unused=(*rebuilt.unused, told),
    )
