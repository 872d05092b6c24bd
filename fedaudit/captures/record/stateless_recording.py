"""Record a run one call a message, where no `Recording` is held between them.

    fedaudit.record_broadcast("capture", 1, model.state_dict(), lr=0.1)
    fedaudit.record_update("capture", 1, "client-7", client_model.state_dict(), kind="weights")

Processes that share nothing but a folder may record into it so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict, Unpack

from fedaudit.captures.format.capture_facts import Keywords, Kind
from fedaudit.captures.record.recording import Tensors, recording


def record_broadcast(
    folder: str | Path,
    round: int,
    tensors: Tensors,
    *,
    client: str | int | None = None,
    **facts: Unpack[Keywords],
) -> None:
    """Record what the server sends in a round; as `Recording.broadcast`, with `recording`'s facts.

    Raises:
        UsageError: As `recording` and `Recording.broadcast`.
        StorageError: The disk is full or may not be written.
    """
    recording(folder, **facts).broadcast(round, tensors, client=client)


class UpdateKeywords(TypedDict, total=False):
    """What `Recording.update` takes beside the tensors; see there."""

    kind: Required[Kind]
    sign: Literal[1, -1]
    examples: int | None
    aggregate: bool
    weights: Sequence[float] | None
    metrics: Mapping[str, object] | None
    protections: Sequence[str]


def record_update(
    folder: str | Path,
    round: int,
    client: str | int,
    tensors: Tensors,
    **update: Unpack[UpdateKeywords],
) -> None:
    """Record what a client sends in a round; as `Recording.update`.

    Args:
        folder: The capture, whose facts `recording` or `record_broadcast` has stated.
        round: Number of the round.
        client: Its name; any text.
        tensors: What it sent, by name.
        **update: `kind`, and what else `Recording.update` takes.

    Raises:
        UsageError: As `Recording.update`.
        StorageError: The disk is full or may not be written.
    """
    recording(folder).update(round, client, tensors, **update)
