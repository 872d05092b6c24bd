"""The header of a recorded message: what was sent, by whom, when, and in which form.

None always means "not known", as in `capture_facts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fedaudit.captures.format.capture_facts import Kind, Names, NotNegative, Text
from fedaudit.captures.format.half_precision import LEAST, MOST

KEY = "fedaudit_message"
"""Where the header of a message's file holds the `Message`."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """The header of a message's file: what was sent, by whom, when.

    Attributes:
        version: Of the format; 2 where there are exponents, without which numbers are wrong.
        what: From the server ("broadcast") or to it ("update").
        round: Number of the round, as the framework counts.
        client: Who sent it, or for whom a broadcast was; None for everybody's broadcast.
        kind: "weights", "delta" (local − global) or "gradient"; None for a broadcast.
        sign: −1 where the tensors are the negative of `kind`: global − local, or lr-less steps
            along the descent direction.
        examples: Number of images that the client says it trained on.
        aggregate: Whether it is a sum or mean over clients.
        weights: w_k of each client in an aggregate Σ w_k · t_k; None where it is not known.
        metrics: What the client sent beside its tensors, such as its loss.
        protections: In use for this message, in words.
        order: Names of the tensors in the order in which they were sent.
        received: Seconds since 1970 at which it was recorded.
        exponents: Of tensors that were rounded to 16 bits: they stand for so many powers of two.
    """

    version: Literal[1, 2] = 1
    what: Literal["broadcast", "update"]
    round: Annotated[int, Field(ge=0, le=10**9)]
    client: Annotated[str, Field(max_length=1000)] | None = None
    kind: Kind | None = None
    sign: Literal[1, -1] = 1
    examples: Annotated[int, Field(ge=0, le=2**40)] | None = None
    aggregate: bool = False
    weights: Annotated[tuple[NotNegative, ...], Field(max_length=1_000_000)] | None = None
    metrics: Mapping[str, bool | int | float | str | list[int] | list[float]] = field(
        default_factory=dict
    )
    protections: Names = ()
    order: Names = ()
    received: NotNegative = 0.0
    exponents: Annotated[
        Mapping[Text, Annotated[int, Field(ge=LEAST, le=MOST)]], Field(max_length=20_000)
    ] = field(default_factory=dict)


@cache
def messages() -> TypeAdapter[Message]:
    """Reads and writes message headers."""
    return TypeAdapter(Message)


def header_of(message: Message) -> str:
    """A message as its file's header holds it."""
    return messages().dump_json(message).decode()
