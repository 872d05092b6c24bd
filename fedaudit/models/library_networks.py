"""Networks of torchvision and timm by name, with random weights: nothing is fetched."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

from fedaudit.core.errors import ConfigError, UsageError, first_line

LIBRARIES = ("torchvision", "timm")
FACTORY = f"{__name__}:from_library"
SIZES = {"torchvision": "image_size", "timm": "img_size"}
"""What each library calls the size of images, where a network is built for one."""
_FETCHES = ("pretrained", "weights", "checkpoint", "cache", "progress")
"""What arguments that fetch or read weights begin with."""


def is_library_name(model: str) -> bool:
    """Whether a model's name is `torchvision:NAME` or `timm:NAME`."""
    return model.partition(":")[0] in LIBRARIES and ":" in model


def from_library(
    *, name: str, arguments: Mapping[str, Any] | None = None, image_size: int | None = None
) -> nn.Module:
    """A classification network, its parameters random.

    Args:
        name: `torchvision:resnet18`, `timm:resnet18`.
        arguments: Of the library's function; they may come from a capture, so that none may fetch
            or read a file.
        image_size: Pixels of the images, for networks that are built for a size.

    Raises:
        UsageError: No such network, timm is not installed, or an argument would fetch weights.
        ConfigError: The network refuses its arguments.
    """
    library, _, network = name.partition(":")
    settings = dict(arguments or {})
    for argument, value in settings.items():
        if argument.startswith(_FETCHES) or not _is_plain(value):
            raise UsageError(
                f"the model's argument {argument!r} is refused: networks of {library} are built "
                "without pretrained weights, from numbers and words."
            )
    build, names = _timm() if library == "timm" else _torchvision()
    if network.partition(".")[0] not in names:
        close = get_close_matches(network, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has, e.g., {names[0]}."
        raise UsageError(f"{library} has no classification network {network!r}: {hint}")
    sizes = SIZES[library] if image_size is not None and SIZES[library] not in settings else ""
    try:
        model: nn.Module = _resize(build, network, settings, {sizes: image_size} if sizes else {})
    except Exception as error:  # a library raises whatever it likes
        raise ConfigError(
            f"{name} refused its arguments {sorted(settings)}: {first_line(error)}"
        ) from error
    return model


def _resize(
    build: Any, network: str, settings: Mapping[str, Any], size: Mapping[str, Any]
) -> nn.Module:
    """The network for images of that size; as it is where it takes any."""
    try:
        model: nn.Module = build(network, {**settings, **size})
    except TypeError:
        if not size:
            raise
        model = build(network, settings)
    return model


def _torchvision() -> tuple[Any, list[str]]:
    from torchvision import models  # noqa: PLC0415 - slow

    # Others than these fetch weights of their backbone unless told otherwise.
    names = models.list_models(module=models)
    return lambda name, settings: models.get_model(name, weights=None, **settings), names


def _timm() -> tuple[Any, list[str]]:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            "timm is not installed in this environment: pip install 'fedaudit[timm]'."
        ) from error
    names = timm.list_models()
    return lambda name, settings: timm.create_model(name, pretrained=False, **settings), names


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) and not isinstance(one, list | tuple) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
