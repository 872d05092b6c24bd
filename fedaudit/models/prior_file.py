"""The file of a trained prior: a generator's weights and what they came from, in safetensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from fedaudit.core.errors import UsageError, first_line
from fedaudit.files.atomic import write_atomically
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.foreign_settings import check_crop
from fedaudit.models.stacked_generator import Architecture, StackedGenerator
from fedaudit.models.style_generator import StyleGenerator

SUFFIX = ".safetensors"
ARCHITECTURES: Mapping[Architecture, type[StackedGenerator]] = {
    kind.architecture: kind for kind in (FaceGan, StyleGenerator)
}
_KEY, _PHOTOS = "fedaudit_prior", "fedaudit_prior_photos"
_LARGEST = 100_000

Width = Annotated[int, Field(ge=1, le=4096)]


class Manifest(BaseModel):
    """What is in a prior's file, and where it came from.

    Attributes:
        version: Of the format.
        architecture: Of the generator; files that are older than the choice say none: a DCGAN.
        widths, latent_dim, crop, mapped: Of the generator (`StackedGenerator`).
        start: What its weights were before: "random", "face_gan" or a prior's file name.
        data: Name of the folder or the data set.
        photos: How many photos it was trained on.
        held_out: How many photos were kept apart to judge it.
        generated: How many faces of `face_gan` it was trained on beside them.
        steps: Training steps.
        seconds: CPU seconds of training.
        seed: Of the training.
        psnr: Mean PSNR in dB of encoded photos: of those that were kept apart, or of those it was
            trained on where none were.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[1] = 1
    architecture: Architecture = "dcgan"
    widths: Annotated[tuple[Width, ...], Field(min_length=2, max_length=6)]
    latent_dim: Width
    crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    mapped: bool = False
    start: str = "random"
    data: str = ""
    photos: int = 0
    held_out: int = 0
    generated: int = 0
    steps: int = 0
    seconds: float = 0.0
    seed: int = 0
    psnr: float | None = None

    @property
    def stock_faces(self) -> bool:
        """Whether it learned from `face_gan`'s weights or faces, and so falls under its terms."""
        return self.generated > 0 or self.start == "face_gan"

    @model_validator(mode="after")
    def _crop_in_order(self) -> "Manifest":
        check_crop(*self.crop)
        return self


@dataclass(frozen=True)
class TrainedPrior:
    """A prior as read from its file."""

    generator: StackedGenerator
    manifest: Manifest


def write_prior(
    path: Path, generator: StackedGenerator, manifest: Manifest, photos: Sequence[str] = ()
) -> None:
    """Write a prior, whole or not at all; a `StorageError` where the disk is full or locked.

    `photos` are hashes of those that it was trained on (`fedaudit.data.photo_hashes`).
    """
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    about = {_KEY: manifest.model_dump_json(), **({_PHOTOS: " ".join(photos)} if photos else {})}
    write_atomically(path, safetensors.torch.save(tensors, about))


def photos_behind(path: Path) -> frozenset[str]:
    """Hashes of the photos that a prior was trained on; none where its file does not say."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return frozenset((file.metadata() or {}).get(_PHOTOS, "").split())
    except (SafetensorError, OSError):
        return frozenset()  # whatever is wrong is said where it is used


def read_prior(path: Path) -> TrainedPrior:
    """A frozen prior that `fedaudit prior train` wrote; a `UsageError` for any other file."""
    if not path.is_file():
        raise UsageError(f"there is no prior file {path}. Check the path.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY, "")
            if not text or len(text) > _LARGEST:
                raise _refusal(path, "it has no description of a prior in it")
            manifest = Manifest.model_validate_json(text)
            with torch.device("meta"):  # shapes are compared before any memory is taken
                generator = ARCHITECTURES[manifest.architecture](
                    manifest.widths, manifest.latent_dim, manifest.crop, manifest.mapped
                )
            layout = generator.state_dict()
            if set(file.keys()) != set(layout):
                raise _refusal(path, "its tensors are not those of its description")
            for name, like in layout.items():
                if list(file.get_slice(name).get_shape()) != list(like.shape):
                    raise _refusal(path, f"{name} has another shape than described")
            # Copied: at the odd addresses that a description's length leads to in the file,
            # kernels sum in another order, and the same weights drew faces of other last bits.
            tensors = {name: file.get_tensor(name).clone() for name in layout}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "description"
        raise _refusal(path, f"{where}: {first['msg']}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise _refusal(path, first_line(error)) from error
    for name, tensor in tensors.items():
        if tensor.dtype != layout[name].dtype or not tensor.isfinite().all():
            raise _refusal(path, f"{name} holds numbers that a generator cannot have")
    generator.load_state_dict(tensors, assign=True)
    return TrainedPrior(generator.eval().requires_grad_(False), manifest)


def _refusal(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} cannot be used as a prior: {reason}. Needed is a file that `fedaudit prior train` "
        "wrote; for a generator of your own use TorchScript (.ts), torch.export (.pt2) or "
        "package.module:factory."
    )
