"""What is finished of an explanation, as small JSON files: an interrupted one goes on from them.

DIR/                    mode 0700
├── question.json       what is asked; a folder answers one question
├── pieces/<key>.json   one attacked observation, or one measurement
├── models/             the federation after the rounds that were needed
├── why.json            the answer, and
└── why.html            its page
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedaudit.core.errors import RunFolderError
from fedaudit.files.atomic import storage_errors, sweep, write_atomically

T = TypeVar("T")

QUESTION, PIECES = "question.json", "pieces"


@dataclass(frozen=True)
class Pieces:
    """Handle of the folder; every write is atomic."""

    path: Path

    def open(self, question: dict[str, Any]) -> None:
        """Make the folder, or check that it answers the same question.

        Raises:
            RunFolderError: It holds the pieces of another question, or other files.
        """
        with storage_errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = [p.name for p in self.path.iterdir() if p.name != ".lock"]
        asked = self.path / QUESTION
        wanted = json.loads(json.dumps(question))
        if not asked.exists():
            if found:
                raise RunFolderError(
                    f"{str(self.path)!r} is not empty, and holds no explanation that could go on. "
                    "Choose another folder with --output."
                )
            with storage_errors(self.path):
                (self.path / PIECES).mkdir(mode=0o700, exist_ok=True)
            write_atomically(asked, json.dumps(wanted, indent=1, sort_keys=True).encode())
            return
        sweep(self.path)
        try:
            before = json.loads(asked.read_bytes())
        except ValueError:
            before = {}
        if before != wanted:
            other = [key for key in wanted if before.get(key) != wanted[key]]
            raise RunFolderError(
                f"{str(self.path)!r} explains something else (another {', '.join(other)}). Choose "
                "another folder with --output, or delete this one."
            )

    def get(self, key: str, kind: TypeAdapter[T], make: Callable[[], T]) -> T:
        """What was kept under `key`, else what `make` makes, which is kept.

        Args:
            key: Any text; the same text is the same piece.
            kind: Of the piece. One that does not fit (damaged, or of an older version) is made
                again.
            make: Computes it.
        """
        path = self.path / PIECES / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        try:
            kept = json.loads(path.read_bytes())
            if kept["key"] == key:
                return kind.validate_python(kept["piece"], strict=False)
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            pass
        piece = make()
        body = {"key": key, "piece": kind.dump_python(piece, mode="json")}
        write_atomically(path, json.dumps(body, sort_keys=True).encode())
        return piece
