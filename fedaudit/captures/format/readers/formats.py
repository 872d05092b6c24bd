"""Readers of files with tensors, one file a format. Each file is taken to be hostile.

No code in a file is ever run, sizes are compared with the file before memory is taken, and whatever
is wrong becomes one `CaptureError` that names the file and, where there is one, the tensor. Should
a reader fail all the same, it fails in a process of its own (`reading_process`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedaudit.captures.format.readers import (
    flower_file,
    npz_file,
    nvflare_file,
    safetensors_file,
    torch_file,
)
from fedaudit.captures.format.readers.limits import Limits, check_file
from fedaudit.captures.format.readers.reading_process import read_apart
from fedaudit.core.errors import CaptureError

Read = Callable[[Path, Limits], dict[str, Tensor]]


@dataclass(frozen=True)
class Format:
    """A format: its name for people, and how it is read.

    Attributes:
        name: For people.
        read: How.
        apart: In a process of its own; not where nothing is parsed but a short header.
    """

    name: str
    read: Read
    apart: bool = True


_FLOWER = Format("Flower's serialized arrays", flower_file.read)
_TORCH = Format("torch.save", torch_file.read)
FORMATS: Mapping[str, Format] = {
    ".safetensors": Format("safetensors", safetensors_file.read, apart=False),
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".npz": Format("npz", npz_file.read),
    ".pb": _FLOWER,
    ".flwr": _FLOWER,
    ".fobs": Format("NVFlare's serialized DXO", nvflare_file.read),
}
"""By the end of the file's name."""


def format_of(path: Path) -> Format:
    """The format of a file, by its name.

    Raises:
        CaptureError: None that is read.
    """
    match = FORMATS.get(path.suffix.lower())
    if match is None:
        rename = (
            "If torch.save wrote it, rename it to .pt. "
            if path.suffix.lower() in {".ckpt", ".bin"}
            else ""
        )
        raise CaptureError(
            path,
            f"its name ends in {path.suffix or 'nothing'!r}; what is read: {', '.join(FORMATS)}. "
            f"{rename}Anything else may need code to be run: convert it where you trust it, with "
            "safetensors.torch.save_file(state_dict, …)",
        )
    return match


def read_tensors(path: Path, *, limits: Limits | None = None) -> dict[str, Tensor]:
    """Tensors of a file by name; those of a list as `arr_0`, `arr_1` …, which `bind` names.

    Args:
        path: The file; the end of its name says the format.
        limits: What is refused.

    Raises:
        CaptureError: The file cannot be used.
    """
    limits = limits or Limits()
    size = check_file(path, limits)
    if format_of(path).apart:
        return read_apart(path, limits, size)
    return read_here(path, limits)


def read_here(path: Path, limits: Limits) -> dict[str, Tensor]:
    """As `read_tensors`, in this process; whatever a reader raises becomes a `CaptureError`."""
    check_file(path, limits)
    try:
        return format_of(path).read(path, limits)
    except CaptureError:
        raise
    except OSError as error:
        raise CaptureError(path, f"it cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise CaptureError(path, "there is not enough memory for its tensors") from error
    except Exception as error:
        raise CaptureError(path, f"it is damaged ({type(error).__name__})") from error


def bind(path: Path, values: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """A list of tensors under the names of a model.

    Raises:
        CaptureError: There are no names, or not as many.
    """
    if not names:
        raise CaptureError(
            path,
            f"it is a list of {len(values)} tensors without names. Name the model, whose order "
            "gives them: --model package.module:factory",
        )
    if len(values) != len(names):
        raise CaptureError(
            path,
            f"it is a list of {len(values)} tensors, and the model has {len(names)} "
            f"({names[0]!r} …): another model, or only a part of it",
        )
    return dict(zip(names, values, strict=True))
