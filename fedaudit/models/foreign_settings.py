"""Settings in a generator's file: latent shape, distribution, range of its images."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedaudit.core.errors import UsageError
from fedaudit.models import latents
from fedaudit.models.latents import Latents

EXTRA_FILE = "fedaudit.json"
"""Name of the settings inside a TorchScript or torch.export file (`extra_files`)."""
SUFFIX = ".json"
"""Added to a generator's path for settings beside it: `prior.ts` → `prior.ts.json`."""
_LARGEST = 10_000
_MOST_NUMBERS = 10_000_000

Side = Annotated[int, Field(ge=1)]


class ForeignSettings(BaseModel):
    """Optional settings of a generator that does not declare them itself.

    Attributes:
        latent_shape: Of one latent, without the batch axis; None tries the usual widths.
        distribution: Of the latent.
        low, high: Bounds of "uniform".
        truncation: Bound of "truncated", in standard deviations.
        range: Values that stand for black and white; None finds out whether [0, 1] or [-1, 1].
        crop: Part of the image that is a face crop, as (top, bottom, left, right) in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    latent_shape: Annotated[list[Side], Field(min_length=1, max_length=4)] | None = None
    distribution: Literal["normal", "uniform", "truncated"] = "normal"
    low: float = -1.0
    high: float = 1.0
    truncation: Annotated[float, Field(gt=0, le=100)] = 2.0
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    crop: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "ForeignSettings":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range must be [black, white] with black below white")
        if self.crop:
            check_crop(*self.crop)
        return self

    def latents(self, *shape: int) -> Latents:
        """The distribution, for latents of that shape."""
        if self.distribution == "uniform":
            return latents.uniform(*shape, low=self.low, high=self.high)
        if self.distribution == "truncated":
            return latents.truncated(*shape, at=self.truncation)
        return latents.normal(*shape)


def check_crop(top: float, bottom: float, left: float, right: float) -> None:
    """Refuse, by `ValueError`, what is no part of an image, in [0, 1] of height and width."""
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError("crop is (top, bottom, left, right) with 0 ≤ top < bottom ≤ 1")


def read_settings(source: Path, inside: bytes | str = b"") -> ForeignSettings:
    """Settings of the generator in `source`: of the file beside it, else from within it.

    Raises:
        UsageError: They are not what `ForeignSettings` describes.
    """
    beside = source.with_name(source.name + SUFFIX)
    place, text = f"{source}, extra file {EXTRA_FILE}", inside
    if beside.is_file():
        place, text = str(beside), beside.read_bytes()[: _LARGEST + 1]
    if not text:
        return ForeignSettings()
    if len(text) > _LARGEST:
        raise UsageError(f"the settings in {place} are over {_LARGEST} bytes: {_example()}")
    try:
        settings = ForeignSettings.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"the settings in {place} cannot be used: {where + ': ' if where else ''}{reason}. "
            f"{_example()}"
        ) from error
    if settings.latent_shape and settings.latents(*settings.latent_shape).size > _MOST_NUMBERS:
        raise UsageError(f"the settings in {place} want a latent of over {_MOST_NUMBERS} numbers.")
    return settings


def _example() -> str:
    example = {"latent_shape": [100, 1, 1], "distribution": "normal", "range": [-1, 1]}
    return f"Needed is JSON such as {json.dumps(example)}."
