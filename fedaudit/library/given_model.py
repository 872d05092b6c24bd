"""The network that a caller gives: out of its wrappers, and tried as attacks will use it."""

import copy
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fedaudit.captures.format.contradictions import against, evened_out, like_weights
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.models.build_network import build
from fedaudit.models.derivatives import OTHER_DERIVATIVES, check_differentiable
from fedaudit.models.facenet import FaceNet
from fedaudit.models.network_file import recover
from fedaudit.models.wrappers import bare

T = TypeVar("T")
NAMING = frozenset({"layer", "layers", "private"})
"""Settings of attacks and defenses that name layers or parameters."""
COMPARED = 100
"""Numbers of an update from which on its direction is none by chance."""


def unwrapped(model: nn.Module, shape: tuple[int, int, int]) -> tuple[nn.Module, str]:
    """The network that is in wrappers of torch, and what these put before its names.

    A TorchScript module is given as the layers that it was made of.

    Raises:
        UsageError: A TorchScript module cannot be followed.
    """
    model, prefix = bare(model)
    if isinstance(model, torch.jit.ScriptModule):
        training, device = model.training, next(model.parameters(), torch.empty(0)).device
        with torch.no_grad():  # else the copy's parameters have a history
            script = copy.deepcopy(model).cpu().eval()
        model = recover(script, "the TorchScript model", shape).to(device).train(training)
    return model, prefix


def without_prefix(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The same, names without what a wrapper puts before them."""
    return {name.removeprefix(prefix): value for name, value in named.items()}


def without_prefix_in(chosen: T, prefix: str) -> T:
    """An attack or a defense whose settings name layers without what a wrapper puts before them.

    What is no dataclass with such a setting is given back as it is.
    """
    if not is_dataclass(chosen) or isinstance(chosen, type):
        return chosen
    own = {f.name: getattr(chosen, f.name) for f in fields(chosen) if f.name in NAMING}
    return replace(chosen, **settings_without_prefix(own, prefix)) if own and prefix else chosen


def settings_without_prefix(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same settings; those that name layers, without what a wrapper puts before the names."""

    def bared(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(bared, value))
        return value.removeprefix(prefix) if isinstance(value, str) else value

    return {name: bared(v) if name in NAMING else v for name, v in settings.items()}


def try_model(spec: ModelSpec, shape: tuple[int, int, int]) -> int:
    """Number of scores K; says at once what no attack could work through.

    Raises:
        UsageError: The model takes no such images, gives no scores `[N, K]`, or has an operation
            without a second derivative.
    """
    network = build(spec).cpu()
    # Ours are tried: AdaFace's margin goes by norms that are detached, which searches bear.
    if not check_differentiable(network, shape) and not isinstance(network, FaceNet):
        warnings.warn(OTHER_DERIVATIVES, stacklevel=3)
    with torch.no_grad():
        images = torch.linspace(0, 1, 2 * shape[0] * shape[1] * shape[2]).view(2, *shape)
        scores = network.eval()(images.to(next(network.parameters()).dtype))
    if bool((scores >= 0).all()) and torch.allclose(scores.sum(1), torch.ones(2).to(scores)):
        warnings.warn(
            "the model's scores are probabilities. Its loss is taken to be cross-entropy of them, "
            "which takes a softmax once more; where the client's took none, return scores before "
            "the softmax, or give the model its own criterion(scores, labels).",
            stacklevel=3,
        )
    inner = spec.arguments.get("arguments", spec.arguments)
    inner["fingerprint"] = hashlib.sha256(scores.double().numpy().tobytes()).hexdigest()
    return int(scores.shape[1])


def warn_of_weights(model: nn.Module, update: Mapping[str, Tensor], kind: str) -> None:
    """Warn where an update looks like the weights of a client instead of their change."""
    own = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
    if sum(value.numel() for value in update.values()) < COMPARED:
        return
    device = next(iter(own.values())).device
    sent = {name: value.detach().to(device) for name, value in update.items()}
    if said := like_weights(kind, *against(sent, own)):  # type: ignore[arg-type]
        warnings.warn(
            f"the update is {said}. Give what the client changed: after[name] − before[name] of "
            'each parameter, with kind="delta".',
            stacklevel=3,
        )


def warn_of_optimizer(
    update: Mapping[str, Tensor], kind: str, training: LocalTraining | None
) -> None:
    """Warn where a change was made by another optimizer than SGD, which is assumed."""
    is_sgd = training is None or training.optimizer == "sgd"
    if kind == "delta" and is_sgd and evened_out(update):
        warnings.warn(
            "the change has one size in all layers, as steps of Adam, RMSprop or Adagrad do and "
            "those of SGD do not, and it is read as of SGD: poor images are to be expected. If it "
            "is of Adam, say training=LocalTraining(lr=…, optimizer='adam'); if it went through a "
            "defense that does so, say defense=….",
            stacklevel=3,
        )
