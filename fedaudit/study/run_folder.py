"""What a run leaves on disk, and how to read it.

    RUN/                          mode 0700: reconstructed faces are biometric data
    ├── study.json                what is run, by which version, since when (`manifest.py`)
    ├── cells/<cell>.json         a finished `Trial`, its hash, what computed it, and the hash of
    ├── cells/<cell>.safetensors  its reconstruction; .safetensors.age where evidence is encrypted
    ├── models/<job>.json         what a training job measured, and the hash of
    ├── models/<job>.safetensors  the model that it trained
    ├── evidence/<scenario>--t….safetensors   the originals, only with full evidence
    ├── failed/<job>.json         why a job failed (`shared_jobs.py`)
    ├── damaged/                  files that did not hold what they should, set aside
    ├── .leases/                  who is at work, and at what (`files/lease.py`)
    └── log.jsonl                 sessions

A `RunFolder` is only a handle: workers have their own. `session.py` opens and cleans it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedaudit.core.errors import RunFolderError
from fedaudit.core.trial import Trial
from fedaudit.files import regular_file, sealed
from fedaudit.files.atomic import append_line, storage_errors, write_atomically
from fedaudit.study.job_record import Record, damage_of, pack_record, read_record, sha256_of
from fedaudit.study.removal_record import removed_files
from fedaudit.study.stored_values import Facts, check_plain, read_as

FACTS, LOG = "facts.json", "log.jsonl"
CELLS, MODELS, MEASUREMENTS = "cells", "models", "measurements"
EVIDENCE, DAMAGED = "evidence", "damaged"
UNFINISHED, FAILED = "unfinished", "failed"


@cache
def _trials() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)


@dataclass(frozen=True)
class RunFolder:
    """Handle of a run folder; every write is atomic and raises `StorageError` on a full disk.

    Attributes:
        recipients: Public keys for which pictures are sealed; () writes them in the clear.
        identity: File of a private key that opens sealed pictures; None leaves them closed.
    """

    path: Path
    recipients: tuple[str, ...] = ()
    identity: Path | None = None

    @cached_property
    def removed(self) -> Mapping[str, str]:
        """SHA-256 of the pictures that were taken out of the folder, by their names."""
        return removed_files(self.path)

    def checkpoint(self, key: str) -> Path | None:
        """Where the unfinished attack of a cell keeps how far it is.

        None where evidence is encrypted: an unfinished face could not be read again.
        """
        return None if self.recipients else self.path / UNFINISHED / f"{key}.safetensors"

    def save_trial(self, trial: Trial, tensors: Mapping[str, Tensor]) -> None:
        """Keep a finished cell. The cell counts as done once this returns.

        Args:
            trial: The scores.
            tensors: What the report draws; usually `images: [N, C, H, W] in [0, 1]`.
        """
        self._save(CELLS, trial.cell.key, tensors, _trials().dump_python(trial))

    def trial(self, key: str) -> Trial:
        """A finished cell.

        Raises:
            RunFolderError: It is missing or damaged.
        """
        return self.stored_trial(key)[0]

    def stored_trial(self, key: str) -> tuple[Trial, Record]:
        """A finished cell with the record that holds it; raises as `trial` does."""
        record = self.record(CELLS, key)
        try:
            trial = _trials().validate_python(record.body)
        except ValidationError as error:
            what = error.errors()[0]
            place = ".".join(str(part) for part in what["loc"])
            raise damage_of(CELLS, key, f"{place[:200]}: {what['msg'][:200]}") from error
        if trial.cell.key != key:
            raise damage_of(CELLS, key, f"it holds {trial.cell.key!r}")
        return trial, record

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The tensors of a finished cell.

        Raises:
            RunFolderError: They are missing or damaged.
        """
        return self._tensors(CELLS, key)

    def save_model(
        self, key: str, tensors: Mapping[str, Tensor], measured: Mapping[str, Any]
    ) -> None:
        """Keep what a training job made. The job counts as done once this returns.

        Args:
            key: The job's key.
            tensors: The model's parameters; may be empty where only the measurement is needed.
            measured: What was measured on it, as plain data.
        """
        self._save(MODELS, key, tensors, measured)

    def model(self, key: str) -> dict[str, Tensor]:
        """The parameters that a training job made.

        Raises:
            RunFolderError: They are missing or damaged.
        """
        return self._tensors(MODELS, key)

    def measured(self, key: str) -> dict[str, Any]:
        """What a training job measured.

        Raises:
            RunFolderError: It is missing or damaged.
        """
        body = self.record(MODELS, key).body
        if not isinstance(body, dict):
            raise damage_of(MODELS, key, "it is no table")
        return body

    def save_measurement(self, key: str, value: object) -> None:
        """Keep plain data that a job measured beside the cells. The job is done once this returns.

        Args:
            key: The job's key.
            value: What JSON can hold.
        """
        self._save(MEASUREMENTS, key, {}, value)

    def measurement(self, key: str) -> Any:
        """What `save_measurement` kept.

        Raises:
            RunFolderError: It is missing or damaged.
        """
        return self.record(MEASUREMENTS, key).body

    def save_evidence(self, scenario: str, target: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a target's originals; only where the user asked for full evidence."""
        path = self._evidence(scenario, target)
        with storage_errors(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        if not self.recipients:
            write_atomically(path, _pack(tensors))
        elif not _sealed_name(path).exists():  # sealed again it would be other bytes
            write_atomically(_sealed_name(path), sealed.seal(_pack(tensors), self.recipients))

    def evidence(self, scenario: str, target: int) -> dict[str, Tensor] | None:
        """A target's originals; None where they were not kept or cannot be read."""
        try:
            return self._read(self._evidence(scenario, target))
        except (OSError, RunFolderError):
            return None

    def save_shared_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep what every worker needs and is slow to make; whoever is first writes it."""
        plain = {key: value.detach().clone() for key, value in tensors.items()}
        content = safetensors.torch.save(plain, {"sha256": sha256_of(_pack(plain))})
        write_atomically(self.path / f"{name}.safetensors", content)

    def shared_tensors(self, name: str) -> dict[str, Tensor] | None:
        """What `save_shared_tensors` kept; None where nothing was.

        Raises:
            RunFolderError: It is not what was written.
        """
        path = self.path / f"{name}.safetensors"
        try:
            tensors, about = regular_file.read_tensors(path)
        except FileNotFoundError:
            return None
        except RunFolderError as error:
            raise _alteration(path) from error
        if about.get("sha256") != sha256_of(_pack(tensors)):
            raise _alteration(path)
        return tensors

    def save_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep where the results come from; whoever is first writes it."""
        write_atomically(self.path / FACTS, json.dumps(facts, indent=1, sort_keys=True).encode())

    def facts(self) -> Facts:
        """What `save_facts` kept; empty where nothing was.

        Raises:
            RunFolderError: It is not what was written.
        """
        try:
            return read_as(Facts, regular_file.read_json(self.path / FACTS), self.path / FACTS)
        except FileNotFoundError:
            return Facts()

    def log(self, **event: object) -> None:
        """Append an event to `log.jsonl`."""
        append_line(self.path / LOG, json.dumps(event, ensure_ascii=False))

    def events(self) -> list[dict[str, Any]]:
        """The events in `log.jsonl`, oldest first; half a line from a crash is skipped.

        Raises:
            RunFolderError: It is no regular file.
        """
        try:
            lines = regular_file.read_bytes(self.path / LOG).decode(errors="replace")
        except FileNotFoundError:
            return []
        return [event for line in lines.split("\n") if (event := _event(line)) is not None]

    def files(self, kind: str, key: str) -> tuple[Path, Path, Path]:
        """The record of a cell or a model, its tensors, and those sealed; each may not exist."""
        tensors = self.path / kind / f"{key}.safetensors"
        return self.path / kind / f"{key}.json", tensors, _sealed_name(tensors)

    def _read(self, path: Path) -> dict[str, Tensor]:
        """Tensors, of the sealed file where there is one."""
        secret = _sealed_name(path)
        if not secret.exists():
            return regular_file.read_tensors(path)[0]
        if path.exists():
            raise RunFolderError(f"{str(path)!r} is there twice, and no run writes it so.")
        if self.identity is None:
            raise RunFolderError(
                f"{str(secret)!r} is sealed. `fedaudit report --identity KEY` shows it to whoever "
                "has the key."
            )
        return regular_file.tensors_in(sealed.unseal(secret, self.identity), secret)[0]

    def _evidence(self, scenario: str, target: int) -> Path:
        return self.path / EVIDENCE / f"{scenario}--t{target:03d}.safetensors"

    def _save(self, kind: str, key: str, tensors: Mapping[str, Tensor], body: object) -> None:
        record_path, tensors_path, sealed_path = self.files(kind, key)
        if record_path.exists():  # by whoever took over while this process stood still
            return
        with storage_errors(record_path.parent):
            record_path.parent.mkdir(mode=0o700, exist_ok=True)
        content = _pack(tensors)
        if kind == CELLS and self.recipients:
            content, tensors_path = sealed.seal(content, self.recipients), sealed_path
        record = pack_record(key, body, sha256_of(content), is_sealed=tensors_path == sealed_path)
        # The record last: its presence says that the tensors are complete.
        write_atomically(tensors_path, content)
        write_atomically(record_path, record)

    def record(self, kind: str, key: str) -> Record:
        """A record that is as it was written, and whose tensors are.

        Raises:
            RunFolderError: It is missing or damaged.
        """
        return read_record(self.files(kind, key), kind, key, self._is_removed)

    def _is_removed(self, name: str, digest: str) -> bool:
        return name in self.removed and self.removed[name] == digest

    def _tensors(self, kind: str, key: str) -> dict[str, Tensor]:
        self.record(kind, key)
        try:
            return self._read(self.files(kind, key)[1])
        except OSError as error:
            raise damage_of(kind, key, "its tensors are not what was written") from error


def _sealed_name(path: Path) -> Path:
    return path.with_name(path.name + sealed.SUFFIX)


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    # Cloned, because tensors that share memory are refused.
    return safetensors.torch.save(
        {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    )


def _alteration(path: Path) -> RunFolderError:
    return RunFolderError(
        f"{str(path)!r} is damaged: it is not what was written, and what it decides, who was "
        "re-identified, cannot be concluded. Restore it from a backup, or run the study again with "
        "another --output."
    )


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        check_plain(event)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
