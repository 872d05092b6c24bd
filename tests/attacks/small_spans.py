"""A small network, what its gradient spans, and what a server sees of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.models import live_module


def spans_in(model: nn.Module, update: dict[str, Tensor], images: Tensor) -> SpanMatching:
    """What a gradient of these images spans."""
    evidence: Evidence = gather_inputs(seen_in(model, update, images))
    return SpanMatching(evidence)


def seen_in(model: nn.Module, update: dict[str, Tensor], images: Tensor) -> Observation:
    """What a server sees of a gradient of these images."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    count = len(images)
    return Observation(
        model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
        before={name: value.detach() for name, value in state.items()},
        shared=(Update("gradient", update, count),),
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        batch_size=count,
        num_classes=5,
        training=LocalTraining(batch_size=count, batch_norm="train" if model.training else "eval"),
    )


def sent(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """A client's gradient, of images that are all of class 0."""
    loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long))
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
