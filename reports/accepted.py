"""Findings that somebody accepted: a file in the user's repository."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedaudit.core.errors import ConfigError
from fedaudit.files import regular_file
from fedaudit.files.atomic import write_atomically

FILE = Path("fedaudit-accepted.toml")
"""Where acceptances stand by default: in the folder from which the gate is run."""
_LARGEST = 1_000_000


class Acceptance(BaseModel):
    """Why a finding is lived with, by whose decision, and until when.

    Attributes:
        reason, owner: In the words of who accepts.
        expires: The last day on which it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    expires: date

    def holds(self, today: date) -> bool:
        """Whether it has not expired."""
        return today <= self.expires


@dataclass(frozen=True)
class _File:
    accepted: Mapping[Annotated[str, Field(pattern="^[0-9a-f]{16}$")], Acceptance]


def read_accepted(path: Path) -> dict[str, Acceptance]:
    """Acceptances by the fingerprint of their finding; none where there is no such file.

    Raises:
        ConfigError: It is no such file; the message says what is wrong with which entry.
    """
    try:
        text = regular_file.read_bytes(path, _LARGEST).decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is no text in UTF-8.") from error
    try:
        content = TypeAdapter(_File).validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{str(path)!r} is no TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{str(path)!r}: {place}: {first['msg']}. `fedaudit accept` writes such entries: "
            "[accepted.FINGERPRINT] with reason, owner, expires = 2027-01-31."
        ) from error
    return dict(content.accepted)


def write_accepted(path: Path, accepted: Mapping[str, Acceptance]) -> None:
    """Write all acceptances, sorted by fingerprint.

    Raises:
        StorageError: The file cannot be written.
    """
    lines = ["# Findings of fedaudit that are accepted. `fedaudit gate` reads this file."]
    for fingerprint, one in sorted(accepted.items()):
        lines += [
            "",
            f"[accepted.{fingerprint}]",
            f"reason = {_quote(one.reason)}",
            f"owner = {_quote(one.owner)}",
            f"expires = {one.expires.isoformat()}",
        ]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _quote(text: str) -> str:
    """A TOML string: JSON's, but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
