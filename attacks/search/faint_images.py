"""Images of a batch of which an update hardly says anything, as far as it is understood so far.

A photo that the network classifies well leaves little in a gradient of several steps. Where true
images miss the update by as much, because mini-batches are not told apart yet, a search leaves such
a photo in noise, and stays there once they are.
"""

import torch
from torch import Tensor

from fedaudit.attacks.search.span_matching import SpanMatching

# By sixteen photos of p01 and p02, two epochs of mini-batches, second network (benchmarks/
# subspace.py --only "two epochs" --batch 16 --seeds 1 --people p01 p02 --targets 1): two photos in
# noise have 0.1 and 0.14, the others 0.42 and more.
FAINT = 0.3
"""By how much the distance rises, in units of the median, without an image that says little."""


def redraw_faint(spans: SpanMatching, images: Tensor) -> Tensor:
    """Images with the mean of the others in place of those that the update would hardly miss.

    Takes a forward pass an image: each is left out in turn.

    Args:
        spans: What the update says of layers' inputs.
        images: `[N, C, H, W]` in [0, 1].

    Returns:
        The images themselves where none of them is faint, or the update would miss hardly any.
    """
    rise = rises_without(spans, images)
    faint = (rise < FAINT * rise.median()).to(images.device)
    if rise.median() <= 0 or not bool(faint.any()):
        return images
    return torch.where(faint.view(-1, 1, 1, 1), images[~faint].mean(0), images)


def rises_without(spans: SpanMatching, images: Tensor) -> Tensor:
    """By how much the distance rises with the mean of the others in place of each image, `[N]`."""
    with torch.no_grad():
        whole, rises = spans.distance(images), []
        for place in range(len(images)):
            others = torch.cat([images[:place], images[place + 1 :]]).mean(0, keepdim=True)
            without = torch.cat([images[:place], others, images[place + 1 :]])
            rises.append(spans.distance(without) - whole)
    return torch.tensor(rises)
