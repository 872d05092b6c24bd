"""Which network a capture is of, without running code that only the capture names."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import lookup, names
from fedaudit.models import library_networks, network_file
from fedaudit.models.build_network import build
from fedaudit.models.library_networks import is_library_name
from fedaudit.models.network_file import is_file

NORMALIZED = f"{__name__}:normalized"


def model_of(
    facts: Facts,
    model: ModelSpec | str | None = None,
    *,
    allow_code: bool = False,
    sha256: str = "",
) -> ModelSpec:
    """The network that clients train.

    Args:
        facts: Of the capture.
        model: What the user names; it is trusted, and goes before what the capture names.
        allow_code: Import `package.module:factory` where only the capture names it. A capture that
            comes from elsewhere could name any function of any package. It names no file in any
            case: `model` alone does.
        sha256: Of a model file as it must be; "" takes it as it is.

    Raises:
        UsageError: No model is known, or only the capture names it and it is code or a file.
        UnknownNameError: No such network.
        ConfigError: It cannot be imported.
    """
    source = facts.model if model is None else model
    if source is None:
        raise UsageError(
            "the capture does not say which model was trained, and no attack does without. Name "
            "it: --model package.module:factory, or model=… when recording."
        )
    if isinstance(source, ModelSpec):
        return _normalize(source, facts)
    is_trusted = model is not None or (source == facts.model and source in names("networks"))
    if not is_trusted and (is_file(source) or not allow_code):
        raise UsageError(
            f"the capture names the model {source!r}, and to build it is to run code that a file "
            f"chose. If you trust it, say so: --model {source}."
        )
    if is_file(source):
        shape = None if facts.image_shape is None else list(facts.image_shape)
        settings = {"path": str(Path(source).absolute()), "image_shape": shape, "sha256": sha256}
        return _normalize(ModelSpec(network_file.FACTORY, settings), facts)
    arguments = dict(facts.arguments or {})
    if is_library_name(source):
        if facts.classes is not None:
            arguments.setdefault("num_classes", facts.classes)
        spec = ModelSpec(library_networks.FACTORY, {"name": source, "arguments": arguments})
        return _normalize(spec, facts)
    parameters = inspect.signature(lookup("networks", source)).parameters
    sizes = {"classes": facts.classes, "num_classes": facts.classes}
    if facts.image_shape is not None and facts.image_shape[1] == facts.image_shape[2]:
        sizes["image_size"] = facts.image_shape[1]
    for name, value in sizes.items():
        if name in parameters and name not in arguments and value is not None:
            arguments[name] = value
    return _normalize(ModelSpec(source, arguments), facts)


def image_shape(facts: Facts, spec: ModelSpec) -> tuple[int, int, int] | None:
    """Shape of an image: as stated, or as a network of ours is built for it; else None."""
    if facts.image_shape is not None or spec.factory not in names("networks"):
        return facts.image_shape
    parameter = inspect.signature(lookup("networks", spec.factory)).parameters.get("image_size")
    size = spec.arguments.get("image_size", parameter.default if parameter else None)
    return (3, size, size) if isinstance(size, int) else None


def network_name(spec: ModelSpec) -> str:
    """The network's own name for people, also where it is wrapped to normalize its images."""
    arguments = spec.arguments
    if spec.factory == NORMALIZED:
        return network_name(ModelSpec(arguments["factory"], arguments["arguments"]))
    if spec.factory == network_file.FACTORY:
        return Path(arguments["path"]).name
    return str(
        arguments["name"] if spec.factory == library_networks.FACTORY else spec.factory
    ).rpartition(":")[2]


def advice_on_classes(spec: ModelSpec, facts: Facts, needed: int) -> str:
    """What to do about a model that is built for another number of classes than was trained."""
    if spec.factory == NORMALIZED:
        spec = ModelSpec(spec.arguments["factory"], spec.arguments["arguments"])
    if spec.factory == network_file.FACTORY:
        return f"Save the model with {needed:,} classes."
    values = dict(spec.arguments.get("arguments", spec.arguments))
    for name in ("classes", "num_classes"):
        if name in (facts.arguments or {}) and values.get(name) == (facts.arguments or {})[name]:
            return f"The capture's arguments say {name} = {values[name]}: correct it to {needed}."
    if facts.classes is not None and facts.classes != needed:
        return f"The capture says classes = {facts.classes}: correct it to {needed}."
    takes_classes = spec.factory == library_networks.FACTORY or (
        {"classes", "num_classes"}
        & inspect.signature(lookup("networks", spec.factory)).parameters.keys()
    )
    if takes_classes:
        return f"State it: fedaudit.recording(CAPTURE, classes={needed})."
    return f"Name a factory that builds {needed:,} classes: its parameter is to be called classes."


def check_size(spec: ModelSpec, facts: Facts, sent: Iterable[Sequence[int]]) -> None:
    """Refuse a network that is far larger than what the server sent, before it is built.

    Raises:
        UsageError: More classes than the largest dimension of a tensor, or a huge argument.
    """
    largest = max((n for shape in sent for n in shape), default=0)
    arguments: Any = spec.arguments
    while isinstance(arguments, Mapping) and "arguments" in arguments:
        arguments = arguments["arguments"]  # of what is normalized, or of a library
    if facts.classes is not None and facts.classes > largest:
        raise UsageError(
            f"the capture says {facts.classes:,} classes, and no tensor that the server sent is "
            f"larger than {largest:,} in any dimension: correct the number of classes."
        )
    for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
        if isinstance(value, int) and value > max(largest, 16_384):
            raise UsageError(
                f"the model's argument {name} = {value:,} is larger than anything that the server "
                "sent: correct it."
            )


def names_of(spec: ModelSpec, facts: Facts) -> tuple[str, ...]:
    """Names of the network's state dict, in its order; `spec` may be built.

    Raises:
        ConfigError: The network cannot be built.
    """
    return facts.parameter_names or tuple(build(spec).state_dict())


def normalized(
    *, factory: str, arguments: Mapping[str, Any], mean: list[float], std: list[float]
) -> nn.Module:
    """A network that takes images in [0, 1], of one that takes them normalized; same names."""
    network = build(ModelSpec(factory, arguments))

    def normalize(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        images, *rest = inputs
        shape = (1, -1, 1, 1)
        center, scale = images.new_tensor(mean).view(shape), images.new_tensor(std).view(shape)
        return ((images - center) / scale, *rest)

    network.register_forward_pre_hook(normalize)
    return network


def _normalize(spec: ModelSpec, facts: Facts) -> ModelSpec:
    if facts.mean is None and facts.std is None:
        return spec
    mean = facts.mean or (0.0,) * len(facts.std or ())
    std = facts.std or (1.0,) * len(mean)
    if len(mean) != len(std):
        raise UsageError(f"the capture has {len(mean)} means and {len(std)} standard deviations.")
    settings = {
        "factory": spec.factory,
        "arguments": dict(spec.arguments),
        "mean": list(mean),
        "std": list(std),
    }
    return ModelSpec(NORMALIZED, settings)
