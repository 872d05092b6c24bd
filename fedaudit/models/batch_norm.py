"""Batch norm: which layers, in which mode a client runs them, and the statistics they see.

A batch-norm layer couples the images of a batch in training mode, and it keeps running statistics,
which are buffers, not parameters. In a federation the server broadcasts them with the parameters,
a client that trains in training mode moves them and sends them back (`core.shared.Buffers`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedaudit.core.observation import LocalTraining
from fedaudit.models.functional import functional_call

Statistics = dict[str, Tensor]
"""`NAME.mean` and `NAME.var` (biased, as the layer itself normalizes), `[channels]` a layer."""


def batch_norm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch-norm layers by name, in the order of the network; {} in a network without."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}


@contextmanager
def preserve_modes(model: nn.Module) -> Iterator[None]:
    """Put every module back in the mode that it was in, whatever the block does."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, in which batch norm does not remember what it sees."""
    with preserve_modes(model):
        model.eval()
        yield


def client_mode(model: nn.Module, training: LocalTraining | None) -> nn.Module:
    """Put `model` in the mode that the client trains in, in place, and return it.

    Everything is in training mode; batch-norm layers follow `training.batch_norm`. A client whose
    settings are not known (`training` is None) is taken to train as frameworks do by default.
    """
    model.train()
    if training is not None and training.batch_norm == "eval":
        for layer in batch_norm_layers(model).values():
            layer.eval()
    return model


def replay_mode(model: nn.Module, training: LocalTraining | None) -> nn.Module:
    """Put `model` in the client's mode as far as others can compute it, in place, and return it.

    Batch norm is as in `client_mode`, but its running statistics stand still, so that a pass is a
    function of its inputs alone and can be mapped over. What a client draws (dropout, stochastic
    depth) nobody else knows: such layers compute what they do on average. Where an image is looked
    at by itself and leaves one value a channel, which has no spread, running statistics stand in.
    """
    model.eval()
    if training is None or training.batch_norm == "train":
        _normalize_each_image(model)
        for layer in batch_norm_layers(model).values():
            layer.train()
            layer.track_running_stats = False
            layer.register_forward_pre_hook(_fix_statistics)
            layer.register_forward_hook(_free_statistics)
    return model


def _normalize_each_image(model: nn.Module) -> None:
    """Instance norm that keeps running statistics, which evaluation takes, as in training mode."""
    for layer in model.modules():
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            layer.track_running_stats = False
            layer._buffers.update(running_mean=None, running_var=None)  # else they would be moved


def _fix_statistics(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Evaluation mode for an input of one value a channel, which torch refuses in training mode."""
    if layer.training and inputs[0].numel() == inputs[0].shape[1]:
        layer.training = False
        vars(layer)["fixed"] = True


def _free_statistics(layer: nn.Module, *_: object) -> None:
    if vars(layer).pop("fixed", False):
        layer.training = True


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of running means and variances by buffer name; {} without batch norm."""
    return {
        f"{name}.{kind}": buffer.detach().clone()
        for name, layer in batch_norm_layers(model).items()
        for kind in ("running_mean", "running_var")
        if (buffer := getattr(layer, kind)) is not None
    }


def collect_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a client sends of its batch-norm layers: running statistics, and the counters of steps.

    A counter, `NAME.num_batches_tracked`, starts at 0 in every round, as the server sends none.
    """
    counters = {
        f"{name}.num_batches_tracked": layer.num_batches_tracked.detach().clone()
        for name, layer in batch_norm_layers(model).items()
        if layer.num_batches_tracked is not None
    }
    return {**running_statistics(model), **counters}


@contextmanager
def _hooks(model: nn.Module, observe: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `observe` with each batch-norm layer's name and input in a `with` block."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: observe(name, inputs[0])

    handles = [
        layer.register_forward_pre_hook(hook(name))
        for name, layer in batch_norm_layers(model).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_statistics(model: nn.Module) -> Iterator[Callable[[], Statistics]]:
    """Record the statistics of what enters each batch-norm layer during a `with` block.

    The value is a function that returns those of the last forward pass, differentiable.
    """
    statistics: Statistics = {}

    def observe(name: str, inputs: Tensor) -> None:
        x = inputs.transpose(0, 1).flatten(1)
        statistics[f"{name}.mean"] = x.mean(1)
        statistics[f"{name}.var"] = x.var(1, unbiased=False)

    with _hooks(model, observe):
        yield lambda: dict(statistics)


def batch_statistics(model: nn.Module, images: Tensor) -> Statistics:
    """Statistics of `images [N, C, H, W]` at each batch-norm layer's input, differentiable.

    The model runs in the mode that it is in; its buffers are left as they are.
    """
    with record_statistics(model) as statistics:
        functional_call(model, copy_buffers(model), (images,))
    return statistics()


def copy_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers, for a functional call that must not move the model's own."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


@torch.no_grad()
def values_per_channel(
    model: nn.Module, image_shape: tuple[int, int, int], count: int = 1
) -> Mapping[str, int]:
    """How many values a channel's statistics are taken over at each layer, `count` images."""
    sizes: dict[str, int] = {}

    def observe(name: str, inputs: Tensor) -> None:
        sizes[name] = inputs.shape[2:].numel() * count

    with _hooks(model, observe):
        zeros = next(model.parameters()).new_zeros(2, *image_shape)
        functional_call(model, copy_buffers(model), (zeros,))
    return sizes
