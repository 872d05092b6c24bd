"""Build the network that a `ModelSpec` names, and load parameters into it."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.seeds import seed_torch
from fedaudit.models.derivatives import replace_hardsigmoid
from fedaudit.models.facenet import FaceNet
from fedaudit.models.named_network import create_network


def build(
    spec: ModelSpec, state: Mapping[str, Tensor] | None = None, *, seed: int = 0
) -> nn.Module:
    """A network in training mode, in single precision or better.

    Args:
        spec: A network's name (`named_network`), with arguments.
        state: Parameters and buffers by name; those that are absent keep their random start.
        seed: Of the random start.

    Raises:
        UnknownNameError: No such network.
        ConfigError: The factory refuses its arguments, or returns no module.
        AttackError: A parameter has another shape, or a name that the network does not have.
    """
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        model = create_network(spec.factory, spec.arguments)
    if not isinstance(model, FaceNet):
        replace_hardsigmoid(model)
        widen(model)
    if state:
        load(model, state)
    return model.train()


def widen(model: nn.Module) -> nn.Module:
    """Bring a network to the best precision among its parameters, single at least, in place."""
    precisions = {torch.float32, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    return model if len(precisions) == 1 else model.to(reduce(torch.promote_types, precisions))


def spec_sizes(spec: ModelSpec) -> dict[str, Any]:
    """The arguments `classes` and `image_size` of a spec."""
    return {name: spec.arguments[name] for name in ("classes", "image_size")}


def wrap(spec: ModelSpec, factory: str, settings: Mapping[str, Any] | None = None) -> ModelSpec:
    """The spec of a factory that takes another network: as `network` and `arguments`.

    `classes` and `image_size` stay among the arguments of the outer one, where they are looked for.
    """
    sizes = spec_sizes(spec)
    inner = {k: v for k, v in spec.arguments.items() if k not in sizes}
    return ModelSpec(
        factory, {"network": spec.factory, "arguments": inner, **(settings or {}), **sizes}
    )


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy parameters by name into `model`, in place; names that are absent are left alone."""
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state.items():
            if name not in own:
                raise AttackError(
                    f"the network has no parameter {name!r}. Its first is {next(iter(own))!r}: "
                    "was the update made with another architecture?"
                )
            if own[name].shape != value.shape:
                raise AttackError(
                    f"parameter {name!r} is {tuple(own[name].shape)} in the network and "
                    f"{tuple(value.shape)} in the update: another number of classes or image size?"
                )
            own[name].copy_(value)


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of the parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}
