"""The pace of a client's local training, found by simulating it on images of nothing.

With a large learning rate the first step on a handful of images does most of the work. How fast
that goes depends on the network, the labels and the settings far more than on what the images show.
So the server trains on smooth noise from the same weights, and reads off the pace.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.training.dummy_update import DummyUpdate
from fedaudit.attacks.training.replay import replay
from fedaudit.attacks.training.schedule import Pace, fixed_order, step_factors
from fedaudit.core.observation import LocalTraining

COARSE = 8
"""Pixels of the noise before it is enlarged: about as smooth as a photo."""


def smooth_noise(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Gray images `[count, C, H, W]` in [0, 1], as smooth as photos are."""
    coarse = torch.rand(count, 1, COARSE, COARSE, generator=generator)
    images = F.interpolate(coarse, shape[1:], mode="bicubic", align_corners=False)
    return images.clamp(0, 1).expand(-1, shape[0], -1, -1).contiguous()


def simulate_pace(
    model: nn.Module,
    before: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    training: LocalTraining,
    still: Collection[str] = (),
) -> Pace:
    """The pace of a client that trains on `images` of anything; one replay, without derivatives."""
    points: list[Tensor] = []
    replay(
        model,
        before,
        images,
        labels,
        training,
        order=fixed_order(len(images), training),
        create_graph=False,
        still=still,
        visit=lambda delta: points.append(torch.cat([m.flatten() for m in delta.values()])),
    )
    end = points[-1]
    length = end.square().sum().clamp_min(torch.finfo(end.dtype).tiny)
    places = [0.0, *(float(point @ end / length) for point in points)]
    moves = [b - a for a, b in pairwise(places)]
    # What a step moves is owed to earlier slopes too; its own slope is what momentum leaves.
    m = training.momentum if training.optimizer == "sgd" else 0.0
    own = [move - m * last for move, last in zip(moves, [0.0, *moves], strict=False)]
    factors = step_factors(replace(training, lr=1.0))
    parts = [f * slope for f, slope in zip(factors, own, strict=True)]
    return Pace(tuple(places[:-1]), tuple(parts))


def along_simulated_path(
    dummy: DummyUpdate,
    image_shape: tuple[int, int, int],
    labels: Tensor,
    generator: torch.Generator,
) -> DummyUpdate:
    """`dummy` along the path, with the pace of simulated training on smooth noise."""
    if dummy.update.kind == "gradient" or dummy.training.steps == 1:
        return dummy
    noise = smooth_noise(dummy.count, image_shape, generator).to(labels.device)
    pace = simulate_pace(dummy.model, dummy.before, noise, labels, dummy.training, dummy.still)
    return replace(dummy, mode="path", pace=pace)
