"""Networks of torchvision and timm by name, never with weights from the network."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

from fedaudit.core.errors import ConfigError, UsageError

LIBRARIES = ("torchvision", "timm")
FACTORY = f"{__name__}:from_library"
_FETCHES = ("pretrained", "weights", "checkpoint", "cache", "progress")
"""What arguments that fetch or read weights begin with."""


def is_library_name(model: str) -> bool:
    """Whether a model's name is `torchvision:NAME` or `timm:NAME`."""
    return model.partition(":")[0] in LIBRARIES and ":" in model


def from_library(*, name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """A classification network, its parameters random.

    Args:
        name: `torchvision:resnet18`, `timm:resnet18`.
        arguments: Of the library's function; they may come from a capture, so that none may fetch
            or read a file.

    Raises:
        UsageError: No such network, timm is not installed, or an argument would fetch weights.
        ConfigError: The network refuses its arguments.
    """
    library, _, network = name.partition(":")
    given = dict(arguments or {})
    for argument, value in given.items():
        if argument.startswith(_FETCHES) or not _is_plain(value):
            raise UsageError(
                f"the model's argument {argument!r} is refused: networks of {library} are built "
                "without pretrained weights, from numbers and words."
            )
    make, known = _timm() if library == "timm" else _torchvision()
    if network.partition(".")[0] not in known:
        close = get_close_matches(network, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has, e.g., {known[0]}."
        raise UsageError(f"{library} has no classification network {network!r}: {hint}")
    try:
        made: nn.Module = make(network, given)
    except Exception as error:  # a library raises whatever it likes
        reason = str(error).strip().split("\n")[0][:300]
        raise ConfigError(f"{name} refused its arguments {sorted(given)}: {reason}") from error
    return made


def _torchvision() -> tuple[Any, list[str]]:
    from torchvision import models  # noqa: PLC0415 - slow

    # Others than these fetch weights of their backbone unless told otherwise.
    known = models.list_models(module=models)
    return lambda name, given: models.get_model(name, weights=None, **given), known


def _timm() -> tuple[Any, list[str]]:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            "timm is not installed in this environment: pip install 'fedaudit[timm]'."
        ) from error
    return lambda name, given: timm.create_model(name, pretrained=False, **given), (
        timm.list_models()
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) and not isinstance(one, list | tuple) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
