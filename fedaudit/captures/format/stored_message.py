"""A message of a capture on disk: its header is read and checked, its tensors when asked for.

Every file is a stranger's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from torch import Tensor

from fedaudit.captures.format.capture_facts import first_problem
from fedaudit.captures.format.capture_manifest import VERSION
from fedaudit.captures.format.half_precision import Restored
from fedaudit.captures.format.message_header import KEY, Message, messages
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.safetensors_file import Header, load, read_header
from fedaudit.captures.format.tensor_names import name_tensors
from fedaudit.core.errors import CaptureError


@dataclass(frozen=True)
class StoredMessage:
    """A message whose header was read; its tensors are not in memory."""

    path: Path
    message: Message
    header: Header

    def tensors(self) -> dict[str, Tensor]:
        """What was sent, in the order in which it was.

        Raises:
            CaptureError: The file is damaged.
        """
        content = Restored(load(self.path, self.header), self.message.exponents)
        return {name: content[name] for name in self.names}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what was sent, in the order in which it was; none of it is read."""
        return {name: self.header.entries[name].shape for name in self.names}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the order in which they were sent."""
        entries = self.header.entries
        order = dict.fromkeys(name for name in self.message.order if name in entries)
        return (*order, *(name for name in entries if name not in order))


class TensorsOnDisk(Mapping[str, Tensor]):
    """A message's tensors under plain names, each read when it is asked for and held by nobody.

    Args:
        stored: The message.
        names: Of the tensors in order, for messages that only number them.
    """

    def __init__(self, stored: StoredMessage, names: Sequence[str] = ()) -> None:
        self._stored = stored
        self._names = name_tensors({name: name for name in stored.names}, names)

    def __getitem__(self, name: str) -> Tensor:
        stored, own = self._stored, self._names[name]
        entries = {own: stored.header.entries[own]}
        (tensor,) = (
            replace(stored, header=replace(stored.header, entries=entries)).tensors().values()
        )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_message(
    path: Path, what: Literal["broadcast", "update"], round: int, limits: Limits
) -> StoredMessage:
    """Read the header of a message.

    Raises:
        CaptureError: The file is damaged, or another message.
    """
    if path.is_symlink():
        raise CaptureError(path, "it is a link, and links are not followed")
    try:
        header = read_header(path, limits)
        message = _message(path, header)
    except CaptureError:
        raise
    except Exception as error:  # of a message no fault may end the reading of the others
        raise CaptureError(path, f"it is damaged ({type(error).__name__})") from error
    if (message.what, message.round) != (what, round):
        raise CaptureError(
            path,
            f"it says that it is the {message.what} of round {message.round}: it was moved or "
            "changed",
        )
    return StoredMessage(path, message, header)


def _message(path: Path, header: Header) -> Message:
    text = header.metadata.get(KEY)
    if text is None:
        raise CaptureError(
            path, "it has no message header. Import it: fedaudit import FILE -o CAPTURE …"
        )
    try:
        message = messages().validate_json(text)
    except ValidationError as error:
        if '"version":' in text and f'"version":{VERSION}' not in text.replace(" ", ""):
            raise CaptureError(
                path, f"its header is of another version than {VERSION}: install a newer fedaudit"
            ) from error
        raise CaptureError(path, f"its message header: {first_problem(error)}") from error
    if message.what == "update" and (message.kind is None or message.client is None):
        raise CaptureError(path, "its message header lacks the kind of update or the client")
    return message
