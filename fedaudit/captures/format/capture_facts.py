"""What is known of a recorded federation beside its tensors: the facts that `capture.json` holds.

None always means "not known". Nothing here is guessed: whoever records states it, or leaves it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fedaudit.core.errors import ConfigError, UnknownNameError

Text = Annotated[str, Field(max_length=500)]
Names = Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=20_000)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Channels = tuple[float, ...]
Kind = Literal["weights", "delta", "gradient"]
BatchNormMode = Literal["train", "eval"]


def _image_that_fits(shape: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    if shape is not None and math.prod(shape) > 1 << 24:
        raise ValueError("an image of more than 16,777,216 numbers is not attacked")
    return shape


@dataclass(frozen=True)
class DpClaim:
    """What a federation claims of differential privacy.

    Attributes:
        clip: C, the bound of the L2 norm that is clipped to.
        noise: σ, the noise multiplier: the noise's standard deviation over C.
        epsilon, delta: The claim; ε for everything that was trained.
        sampling: Share of units that take part in a step or a round, in (0, 1].
        neighbors: What two neighboring data sets differ in.
        unit: What is protected: "example", "client" or in words.
        sensitivity: What the noise was scaled with, where it is set apart from C.
        where: Who adds the noise.
    """

    clip: Positive | None = None
    noise: NotNegative | None = None
    epsilon: NotNegative | None = None
    delta: Annotated[float, Field(ge=0, lt=1)] | None = None
    sampling: Annotated[float, Field(gt=0, le=1)] | None = None
    neighbors: Literal["add_remove", "replace"] | None = None
    unit: Text | None = None
    sensitivity: Positive | None = None
    where: Literal["client", "server"] | None = None


@dataclass(frozen=True)
class HeadFacts:
    """The classification layer: "linear", "cosface", "arcface" …, its scale s and margin m."""

    type: Text | None = None
    scale: Positive | None = None
    margin: NotNegative | None = None
    shared: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a federation; every field may be unknown (None).

    Attributes:
        model: A registered network; or `package.module:factory`, `torchvision:NAME`, `timm:NAME`,
            or a file's path, which whoever audits must name, too, to trust it.
        arguments: Keyword arguments of the factory.
        classes: Width of the head.
        image_shape: `(C, H, W)` of what enters the network.
        channel_order: "rgb" or "bgr".
        mean, std: A channel, for images in [0, 1], where they are normalized outside the model.
        crop: How faces were cropped, in words.
        optimizer, lr, momentum, weight_decay, proximal: As in `LocalTraining`.
        local_steps: Optimizer steps of a client in a round.
        local_epochs: Passes over a client's images in a round.
        batch_size: Images a step.
        batch_norm: Mode of batch-norm layers while a client trains.
        augmentation: Random changes of images in training, in words; "" where there is none.
        loss: In words, such as "cross_entropy".
        head: The classification layer.
        labels_known: Whether the server knows the labels of a client's images.
        dp: The claim of differential privacy.
        protections: Everything else in use ("secure aggregation", "pruning 0.9"); () where it is
            known that there is nothing, None where it is not known.
        parameter_names: All names of the state dict in the model's order, as positional formats
            need them.
        buffers: Names that are buffers, not parameters; None where running statistics and
            counters of batch norm are all there is.
        framework: Name and version, such as "flower 1.42.0".
        sampled: Share of the clients' messages that is recorded, in (0, 1], drawn by client and
            round (`fedaudit.captures.record.message_sample`); None where all of them are.
        precision: "half" where the recording keeps clients' changes in 16 bits, which changes each
            number by 2^-11 of it at most (`fedaudit.captures.record.rounded_update`); None where
            all is kept as it was sent.
    """

    model: Text | None = None
    arguments: Mapping[str, Any] | None = None
    classes: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    image_shape: Annotated[
        tuple[
            Annotated[int, Field(ge=1, le=64)],
            Annotated[int, Field(ge=1, le=16_384)],
            Annotated[int, Field(ge=1, le=16_384)],
        ]
        | None,
        AfterValidator(_image_that_fits),
    ] = None
    channel_order: Literal["rgb", "bgr"] | None = None
    mean: Annotated[Channels, Field(min_length=1, max_length=64)] | None = None
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)] | None = None
    crop: Text | None = None
    optimizer: Text | None = None
    lr: Positive | None = None
    momentum: NotNegative | None = None
    weight_decay: NotNegative | None = None
    proximal: NotNegative | None = None
    local_steps: Count | None = None
    local_epochs: Count | None = None
    batch_size: Count | None = None
    batch_norm: BatchNormMode | None = None
    augmentation: Text | None = None
    loss: Text | None = None
    head: HeadFacts | None = None
    labels_known: bool | None = None
    dp: DpClaim | None = None
    protections: Names | None = None
    parameter_names: Names | None = None
    buffers: Names | None = None
    framework: Text | None = None
    sampled: Annotated[float, Field(gt=0, le=1)] | None = None
    precision: Literal["half"] | None = None


class Keywords(TypedDict, total=False):
    """`Facts` as keyword arguments; see there."""

    model: str | None
    arguments: Mapping[str, Any] | None
    classes: int | None
    image_shape: tuple[int, int, int] | None
    channel_order: Literal["rgb", "bgr"] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    crop: str | None
    optimizer: str | None
    lr: float | None
    momentum: float | None
    weight_decay: float | None
    proximal: float | None
    local_steps: int | None
    local_epochs: int | None
    batch_size: int | None
    batch_norm: BatchNormMode | None
    augmentation: str | None
    loss: str | None
    head: HeadFacts | None
    labels_known: bool | None
    dp: DpClaim | None
    protections: tuple[str, ...] | None
    parameter_names: tuple[str, ...] | None
    buffers: tuple[str, ...] | None
    framework: str | None
    sampled: float | None
    precision: Literal["half"] | None


@cache
def _facts() -> TypeAdapter[Facts]:
    return TypeAdapter(Facts)


def check_facts(given: Mapping[str, Any]) -> Facts:
    """Facts from keyword arguments.

    Raises:
        UnknownNameError: There is no such fact.
        ConfigError: A fact has a value that it cannot have.
    """
    names = [f.name for f in fields(Facts)]
    for name in given:
        if name not in names:
            raise UnknownNameError("fact", name, names)
    try:
        json.dumps(given.get("arguments"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"arguments: {error}. They are kept as JSON: use numbers, text, lists and tables."
        ) from error
    try:
        return _facts().validate_python(dict(given))
    except ValidationError as error:
        raise ConfigError(f"a fact of the recording: {first_problem(error)}") from error


def as_dict(facts: Facts) -> dict[str, Any]:
    """The facts that are known, as plain data."""
    plain: dict[str, Any] = _facts().dump_python(facts, mode="json")
    return {name: value for name, value in plain.items() if value is not None}


def merge(facts: Facts, more: Facts) -> tuple[Facts, tuple[str, ...]]:
    """`facts` with what `more` adds, and the names of facts on which the two disagree."""
    ours, theirs = as_dict(facts), as_dict(more)
    clashes = tuple(n for n in theirs if n in ours and ours[n] != theirs[n])
    return _facts().validate_python({**theirs, **ours}), clashes


def first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic in one line, with the place."""
    first = error.errors()[0]
    place = ".".join(str(part)[:60] for part in first["loc"]) or "content"
    return f"{place}: {first['msg']}"
