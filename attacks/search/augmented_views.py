"""Photos that are changed at random in each epoch: every view of them is an image of its own.

A client that flips, crops and tones its photos before each step trains on another version of each
in every epoch, and its update is of all of them. A search for as many images as there are photos
takes two versions for one, and misses both. So it is for the views, as if one epoch had gone over
them all: which of them shared a mini-batch the update says (`mini_batches`), and those of the first
epoch, whose weights are known best, are returned.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.search.faint_images import rises_without
from fedaudit.attacks.search.mini_batches import are_told_apart
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import Observation


def of_views(seen: Observation) -> Observation | None:
    """The observation as of all views of the photos, one epoch; None where nothing changes them.

    Nor where epochs are cut short or have mini-batches of two sizes.
    """
    training, count = seen.training, seen.batch_size
    if training is None or count is None or not training.augmentation:
        return None
    size = min(training.batch_size, count)
    views = training.steps * size
    if views <= count or count % size or views % count or training.optimizer != "sgd":
        return None
    return replace(seen, batch_size=views, labels=None, training=replace(training, batch_size=size))


def begin_of_views(
    begin: Callable[[Observation], SearchRun], seen: Observation, generator: torch.Generator
) -> SearchRun:
    """The search for all views, where the update says who shared a mini-batch; else for photos.

    Args:
        begin: Makes a search by what layers' inputs span ready.
        seen: What the server saw.
        generator: From which that draws.
    """
    views, drawn = of_views(seen), generator.get_state()
    if views is not None:
        run = begin(views)
        leading = run.scene.leading
        if leading is not None and leading.decides and are_told_apart(leading.evidence):
            return run
        generator.set_state(drawn)
    return begin(seen)


def one_a_photo(
    spans: SpanMatching | None, images: Tensor, labels: Tensor, count: int | None
) -> tuple[Tensor, Tensor]:
    """Views `[M, C, H, W]` of the first epoch with their labels: `count` of them, one a photo.

    Where mini-batches were not found after all, those that the update would miss most.
    """
    if spans is None or count is None or len(images) == count:
        return images, labels
    order = [place for _, which in spans.reader.moments for place in which]
    if not order:
        order = rises_without(spans, images).argsort(descending=True).tolist()
    own = torch.tensor(order[:count]).sort().values
    return images[own.to(images.device)], labels[own]
