"""How much a reader takes from a file of a stranger, and the names that it accepts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import CaptureError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused before memory is taken.

    Attributes:
        file_bytes: Of the file.
        total_bytes: Of all tensors together; with what the server sent at hand, a few times that.
        tensors: Number of tensors.
        name: Characters of a name.
        dimensions: Of a tensor.
        ratio: How many times larger than their archive compressed members may be in all; archives
            below `small` bytes, whose contents are cheap, are not held to it.
        small: Bytes of contents that no ratio makes dangerous.
        seconds: In which a file must be read, and more for large ones.
        why: Where the limits of bytes come from, as the end of a sentence about them.
    """

    file_bytes: int = 16 << 30
    total_bytes: int = 8 << 30
    tensors: int = 20_000
    name: int = 500
    dimensions: int = 8
    ratio: float = 100.0
    small: int = 64 << 20
    seconds: float = 30.0
    why: str = ""

    def at_most(self, count: int) -> str:
        """The limit that a file goes beyond, as the end of a sentence."""
        return f"at most {count:,} are read{self.why}"


def check_file(path: Path, limits: Limits) -> int:
    """The size of a file that may be opened.

    Raises:
        CaptureError: There is none, it is no regular file, too large, or may not be read.
    """
    try:
        if not path.is_file():
            exists = path.exists()
            raise CaptureError(path, "it is not a regular file" if exists else "no such file")
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a name with a null byte, a folder without permission
        raise CaptureError(path, f"it cannot be read ({error})") from error
    if size > limits.file_bytes:
        raise CaptureError(path, f"it has {size:,} bytes, and {limits.at_most(limits.file_bytes)}")
    if size == 0:
        raise CaptureError(path, "it is empty")
    return size


def check_name(path: Path, name: object, limits: Limits) -> str:
    """A tensor's name, which is text and nothing else.

    Raises:
        CaptureError: It is no text, too long, or would disturb a terminal.
    """
    if not isinstance(name, str):
        raise CaptureError(path, f"a tensor is named by {type(name).__name__}, not by text")
    if not name:
        raise CaptureError(path, "a tensor has no name")
    if len(name) > limits.name:
        raise CaptureError(
            path, f"a name is longer than {limits.name} characters", key=name[:40] + "…"
        )
    if not name.isprintable():
        raise CaptureError(path, "the name has characters that cannot be printed", key=name)
    return name


def check_shape(path: Path, name: str, shape: Sequence[int], width: int, limits: Limits) -> int:
    """Bytes that a tensor of that shape takes, at `width` bytes a number.

    Raises:
        CaptureError: Too many dimensions, negative ones, or more bytes than `limits` allow.
    """
    if len(shape) > limits.dimensions:
        raise CaptureError(
            path,
            f"it has {len(shape)} dimensions, and at most {limits.dimensions} are read",
            key=name,
        )
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in shape):
        raise CaptureError(path, "its shape is not made of whole numbers", key=name)
    size = math.prod(shape) * width
    # A dimension of 0 hides the others from the product, but not from the program that meets it.
    if size > limits.total_bytes or any(n > limits.total_bytes for n in shape):
        text = "×".join(f"{n:,}" if n < 1 << 64 else "(over 2^64)" for n in shape)
        raise CaptureError(
            path,
            f"it declares the shape {text}, more than the {limits.total_bytes:,} bytes that are "
            f"read{limits.why}",
            key=name,
        )
    return size


def check_total(path: Path, count: int, total: int, limits: Limits) -> None:
    """Refuse too many tensors, or too large ones together.

    Raises:
        CaptureError: There are none, or more than `limits` allow.
    """
    if count == 0:
        raise CaptureError(path, "it holds no tensors")
    if count > limits.tensors:
        raise CaptureError(
            path, f"it holds {count:,} tensors, and at most {limits.tensors:,} are read"
        )
    if total > limits.total_bytes:
        raise CaptureError(
            path,
            f"its tensors take {total:,} bytes, and {limits.at_most(limits.total_bytes)}",
        )


def check_copies(path: Path, total: int, size: int, limits: Limits) -> None:
    """Refuse tensors that lie over each other and together take far more than their file.

    Raises:
        CaptureError: `total` bytes of tensors are more than eight times the `size` of the file.
    """
    if total > max(limits.small, 8 * size):
        raise CaptureError(
            path,
            f"its tensors share their numbers, and would take {total:,} bytes of a file of "
            f"{size:,}. Save each with .clone()",
        )
