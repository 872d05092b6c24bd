"""Networks by the names that people give: ours, a library's, or a factory of their own."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create, lookup
from fedaudit.models import library_networks, network_file
from fedaudit.models.facenet import FaceNet
from fedaudit.models.library_networks import is_library_name
from fedaudit.models.wrappers import bare


def create_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that a name stands for, everywhere alike.

    Args:
        name: A registered network, `torchvision:NAME`, `timm:NAME`, `package.module:factory`, or
            the path of a file (`network_file`), whose weights are the network's start.
        arguments: Of it; `classes` and `image_size` as far as it takes them. A factory may call
            the number of classes `num_classes`, and need not mind the size of the images. With
            `head` ("linear", "cosface", "arcface", "adaface") a network that has no such argument
            gives embeddings of width `dim`, 512 if not given, and that head stands behind them.

    Raises:
        UnknownNameError: No such network or argument.
        ConfigError: The factory cannot be imported, refuses its arguments, or returns no module
            of layers with weights.
    """
    if "head" in arguments and is_foreign(name) and not _takes(name, "head"):
        return _with_head(name, dict(arguments))
    own = ":" in name and not is_library_name(name)
    if own and isinstance(lookup("networks", name), nn.Module):
        raise ConfigError(
            f"{name} is a network that is built already: name the class or function that builds it."
        )
    factory, settings = fit_arguments(name, arguments)
    model = create("networks", factory, settings)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(
            f"{name} returned TorchScript, which says no layers: return the network that it was "
            "made of, or save it with torch.jit.save and name the file."
        )
    if lazy := unborn_layer(model):
        raise ConfigError(
            f"{name} returned a network whose layer {lazy} has no weights before it has seen an "
            "image: run it once on images before it is returned."
        )
    return bare(model)[0]


def unborn_layer(model: nn.Module) -> str | None:
    """The first lazy layer whose parameters have no shape yet, such as "1 (LazyLinear)"."""
    for name, layer in model.named_modules():
        own = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        if any(map(is_lazy, own)):
            return f"{name!r} ({type(layer).__name__})"
    return None


def is_foreign(name: str) -> bool:
    """Whether a network is none of ours: a library's, a factory of somebody's, or a file."""
    return ":" in name or network_file.is_file(name)


def _takes(name: str, argument: str) -> bool:
    """Whether a factory has an argument of that name; networks of libraries have none of ours."""
    if is_library_name(name):
        return False
    try:
        return argument in inspect.signature(lookup("networks", name)).parameters
    except (TypeError, ValueError):
        return False


def _with_head(name: str, arguments: dict[str, Any]) -> FaceNet:
    """The network with one of our heads behind its scores, which are embeddings then."""
    head, dim = arguments.pop("head"), arguments.pop("dim", 512)
    classes, image_size = arguments["classes"], arguments["image_size"]
    backbone = create_network(name, {**arguments, "classes": dim})
    body = nn.Sequential(backbone, nn.Unflatten(1, (dim, 1, 1)))
    return FaceNet(body, image_size=image_size, classes=classes, head=head, dim=0)


def fit_arguments(name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The factory of a network, and its arguments under that factory's own parameter names."""
    settings = dict(arguments)
    sizes = {key: settings.pop(key) for key in ("classes", "image_size") if key in settings}
    if is_library_name(name):
        if "classes" in sizes:
            settings.setdefault("num_classes", sizes["classes"])
        size = {"image_size": sizes["image_size"]} if "image_size" in sizes else {}
        return library_networks.FACTORY, {"name": name, "arguments": settings, **size}
    if network_file.is_file(name):
        side = sizes.get("image_size")
        shape = {} if side is None else {"image_shape": (3, side, side)}
        some = {"classes": sizes["classes"]} if "classes" in sizes else {}
        return network_file.FACTORY, {"path": name, **settings, **shape, **some}
    if ":" not in name:
        return name, dict(arguments)
    try:
        parameters = inspect.signature(lookup("networks", name)).parameters
    except (TypeError, ValueError):  # built in C; it will refuse on its own
        return name, dict(arguments)
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "classes" in sizes and "classes" not in parameters and "num_classes" in parameters:
        settings.setdefault("num_classes", sizes.pop("classes"))
    fits: dict[str, Any] = {k: v for k, v in sizes.items() if everything or k in parameters}
    if "classes" in sizes and "classes" not in fits:
        raise ConfigError(
            f"the network {name!r} takes no number of classes, and the data set decides it: give "
            "its factory a parameter `classes` or `num_classes`."
        )
    return name, {**settings, **fits}
