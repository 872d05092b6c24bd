"""The file that an interrupted search goes on from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from fedaudit.core.errors import RunFolderError
from fedaudit.files.atomic import storage_errors, write_atomically
from fedaudit.files.regular_file import read_tensors

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A file that an interrupted attack goes on from.

    It is whole or absent, and only its owner can read it: it holds unfinished faces.

    Args:
        path: Where; removed when the attack ends, as is what stands `beside` it.
        every: Seconds between two savings, at least.
    """

    path: Path
    every: float = 30.0

    def save(self, fingerprint: str, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Keep where an attack is; `fingerprint` says which attack on which observation.

        Raises:
            StorageError: The disk is full or may not be written.
        """
        with storage_errors(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        metadata = {"fingerprint": fingerprint, "facts": json.dumps(facts)}
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        write_atomically(self.path, save(tensors, metadata))

    def load(self, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What `save` kept; None without a file, or where it is damaged or another attack's."""
        try:
            tensors, metadata = read_tensors(self.path)
            if metadata.get("fingerprint") != fingerprint:
                return None
            # Cloned, for memory that is aligned: other sums differ in a bit.
            return json.loads(metadata["facts"]), {k: v.clone() for k, v in tensors.items()}
        except (OSError, RunFolderError, KeyError, ValueError, RecursionError):
            return None

    @property
    def beside(self) -> "Checkpoint":
        """Where what the search begins with is kept: its own file changes from step to step."""
        name = f"{self.path.name.removesuffix(SUFFIX)}.evidence{SUFFIX}"
        return replace(self, path=self.path.with_name(name))

    def clear(self) -> None:
        """The attack has ended: there is nothing to resume."""
        for one in (self, self.beside):
            one.path.unlink(missing_ok=True)
