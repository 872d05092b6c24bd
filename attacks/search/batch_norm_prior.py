"""Batch-norm statistics as an image prior: dummy images must look to each layer as the batch did.

They are granted, or follow from shared running statistics, or others stand in for them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.models.batch_norm import (
    batch_norm_layers,
    batch_statistics,
    record_statistics,
    values_per_channel,
)

PROXY_FACES = 32
"""Generated faces whose batch-norm statistics stand in for unknown ones."""
Statistics = Mapping[str, Tensor]
"""`NAME.mean` and `NAME.var` (biased), `[channels]` each, at each batch-norm layer's input."""


@dataclass(frozen=True)
class BatchNormPrior:
    """How far the batch statistics of dummy images are from known ones; 0 where they agree.

    Yin et al. (CVPR 2021), eq. 8: the L2 distances of means and of variances, summed over the
    batch-norm layers, as they are where not `relative`. Else each distance is in units of the
    layer's own size and the sum is a mean, so that one weight serves networks of any depth and
    width.

    Args:
        model: In the client's mode (`fedaudit.models.batch_norm.client_mode`).
        source: What to be near to: `from_observation` or one of the functions it chooses from.
        relative: Scale distances by layers; False is the paper's equation.

    Raises:
        AttackError: The model has no batch norm, or `source` misses a layer.
    """

    model: nn.Module
    source: Statistics
    relative: bool = True

    def __post_init__(self) -> None:
        layers = batch_norm_layers(self.model)
        if not layers:
            raise AttackError(
                "the network has no batch-norm layers whose statistics images could match: leave "
                "the batch-norm prior out."
            )
        missing = {f"{n}.{k}" for n in layers for k in ("mean", "var")} - set(self.source)
        if missing:
            raise AttackError(
                f"statistics of {min(missing)!r} are missing: were they taken from another network?"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """The distance of `images [N, C, H, W]`, a differentiable scalar; costs a forward pass."""
        return self.distance(batch_statistics(self.model, images))

    @contextmanager
    def listening(self) -> Iterator[Callable[[], Tensor]]:
        """Take the distance from forward passes that the caller makes anyway.

        In `with prior.listening() as distance:` run the model on all dummy images once, then
        `distance()` is the scalar.
        """
        with record_statistics(self.model) as heard:
            yield lambda: self.distance(heard())

    def distance(self, dummy: Statistics) -> Tensor:
        """The scalar, of statistics that are known already."""
        terms = []
        for name in batch_norm_layers(self.model):
            mean, var = self.source[f"{name}.mean"], self.source[f"{name}.var"]
            tiny = torch.finfo(var.dtype).eps
            off_mean = torch.linalg.vector_norm(dummy[f"{name}.mean"] - mean)
            off_var = torch.linalg.vector_norm(dummy[f"{name}.var"] - var)
            if not self.relative:
                terms += [off_mean, off_var]
                continue
            terms += [off_mean / (var.sum() + tiny).sqrt(), off_var / (var.norm() + tiny)]
        return torch.stack(terms).mean() if self.relative else torch.stack(terms).sum()


def running(model: nn.Module) -> dict[str, Tensor]:
    """The model's running statistics: what the federation's data look like on the whole.

    A fresh model has none yet: its mean 0 and variance 1 say nothing of images.
    """
    statistics = {}
    for name, layer in batch_norm_layers(model).items():
        if layer.running_mean is not None and layer.running_var is not None:
            statistics[f"{name}.mean"] = layer.running_mean.detach().clone()
            statistics[f"{name}.var"] = layer.running_var.detach().clone()
    return statistics


@torch.no_grad()
def of_faces(model: nn.Module, faces: Tensor, count: int) -> dict[str, Tensor]:
    """Mean statistics over batches of `count` of `faces [n, C, H, W]`, n ≥ count, in [0, 1]."""
    whole = [part for part in torch.split(faces, count) if len(part) == count]
    batches = [batch_statistics(model, part) for part in whole]
    return {name: torch.stack([b[name] for b in batches]).mean(0) for name in batches[0]}


def from_buffers(
    model: nn.Module,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    image_shape: tuple[int, int, int],
    count: int,
    steps: int | None = None,
) -> dict[str, Tensor]:
    """The client's batch statistics out of the running statistics that it shared, layer by layer.

    A layer sets running ← (1 − m)·running + m·batch in every step. After one step that is solved
    for the batch, exactly; after T steps for the mean over the steps, the last ones weighing more.

    Args:
        model: The architecture, for the layers' m and sizes.
        before: Running statistics as broadcast, by buffer name.
        after: As the client shared them.
        image_shape: `(C, H, W)`.
        count: Images in a step.
        steps: T; None reads the layers' counters, which a client's buffers hold, or takes 1.
    """
    sizes = values_per_channel(model, image_shape, count)
    statistics = {}
    for name, layer in batch_norm_layers(model).items():
        if f"{name}.running_mean" not in after or f"{name}.running_mean" not in before:
            continue
        counter = after.get(f"{name}.num_batches_tracked")
        number_of_steps = steps or (int(counter) if counter is not None and int(counter) > 0 else 1)
        # momentum=None is a running mean over all steps since the counter was 0
        remaining = 0.0 if layer.momentum is None else (1 - layer.momentum) ** number_of_steps

        def solve(kind: str, name: str = name, remaining: float = remaining) -> Tensor:
            old, new = before[f"{name}.{kind}"], after[f"{name}.{kind}"]
            batch_value: Tensor = (new.double() - remaining * old.double()) / (1 - remaining)
            return batch_value.to(new.dtype)

        statistics[f"{name}.mean"] = solve("running_mean")
        # Running variances are unbiased, but a layer normalizes with biased ones.
        correction = 1 - 1 / sizes[name]
        statistics[f"{name}.var"] = (solve("running_var") * correction).clamp_min(0)
    return statistics


def from_observation(
    seen: Observation, model: nn.Module, faces: Tensor | None = None
) -> dict[str, Tensor] | None:
    """The best statistics that an observation gives; None where it gives none.

    In order: granted by the threat model; recovered from shared buffers; of `faces` `[n, C, H, W]`
    from elsewhere through the broadcast model; the broadcast running statistics, unless they are a
    fresh model's.
    """
    layers = batch_norm_layers(model)
    names = {f"{name}.{kind}" for name in layers for kind in ("mean", "var")}
    if not layers:
        return None
    if seen.statistics is not None and names <= set(seen.statistics):
        return dict(seen.statistics)
    if seen.buffers is not None and seen.image_shape is not None and seen.batch_size is not None:
        size = seen.batch_size
        if seen.training is not None:
            size = min(seen.training.batch_size, size)
        statistics = from_buffers(model, seen.before, seen.buffers.tensors, seen.image_shape, size)
        if names <= set(statistics):
            return statistics
    if faces is not None and seen.batch_size is not None and len(faces) >= seen.batch_size:
        return of_faces(model, faces, seen.batch_size)
    means = (layer.running_mean for layer in layers.values())
    return running(model) if any(m is not None and bool(m.any()) for m in means) else None


def prior_of(
    seen: Observation,
    model: nn.Module,
    weight: float,
    faces: Callable[[int], Tensor] | None = None,
    *,
    relative: bool = True,
) -> Callable[[Tensor], Tensor] | None:
    """The batch-norm prior times `weight`, where it is asked for and an observation has a source.

    Args:
        seen: What the server saw.
        model: Its network.
        weight: 0 asks for none.
        faces: Draws faces; what a layer sees of `PROXY_FACES` of them stands in for the batch.
        relative: Scale distances by layers, as `BatchNormPrior` does.
    """
    if not weight:
        return None
    source = from_observation(seen, model, faces(PROXY_FACES) if faces else None)
    if not source:
        return None
    prior = BatchNormPrior(model, source, relative)
    return lambda images: weight * prior(images)
