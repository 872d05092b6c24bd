"""Record a federation that really runs, from any PyTorch training loop: what crosses the wire.

    with fedaudit.recording("capture", model="my_pkg.net:make", classes=10, lr=0.1) as record:
        record.broadcast(1, model.state_dict())
        record.update(1, "client-7", client_model.state_dict(), kind="weights", examples=20)

Every message is a file of its own, written whole or not at all, so that several processes may
record into one folder and nothing is lost when one of them dies. Nothing is kept in memory.

    CAPTURE/                                  mode 0700; files 0600
    ├── capture.json                          the facts, by whoever is first
    ├── facts-<hash>.json                     facts that were added later
    └── round-000001/
        ├── broadcast.safetensors             what the server sent; its header holds a `Message`
        └── update-<client>-<hash>.safetensors
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from pydantic import ValidationError

from fedaudit.captures.format.capture_facts import (
    Facts,
    Keywords,
    Kind,
    as_dict,
    check_facts,
    first_problem,
    merge,
)
from fedaudit.captures.format.capture_manifest import VERSION, Manifest, manifests
from fedaudit.captures.format.capture_paths import round_folder, slug
from fedaudit.captures.format.capture_reader import read_manifest
from fedaudit.captures.format.kept_measures import Before, broadcast_before, keep
from fedaudit.captures.format.message_header import KEY, Message, header_of, messages
from fedaudit.captures.record.message_sample import drawn
from fedaudit.captures.record.message_writer import ready, write_message, write_new
from fedaudit.captures.record.rounded_update import round_update
from fedaudit.core.errors import CaptureError, ConfigError, UsageError
from fedaudit.core.version import VERSION as FEDAUDIT_VERSION
from fedaudit.files.atomic import storage_errors

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MANIFEST = "capture.json"
Tensors = Mapping[str, "Tensor | np.ndarray[Any, Any]"]


def recording(folder: str | Path, **facts: Unpack[Keywords]) -> "Recording":
    """Start to record a run, or go on with one.

    Args:
        folder: Where to; made if it does not exist. One folder a run.
        **facts: What is known of the federation: fields of `capture_facts.Facts`. Leave
            out what is not known: attacks then say what they miss.

    Returns:
        A `Recording`, for a `with` block or as it is: it holds nothing open.

    Raises:
        UnknownNameError: There is no such fact.
        ConfigError: A fact has a value that it cannot have.
        UsageError: The folder holds something else, or facts that contradict these.
        StorageError: The disk is full or may not be written.
    """
    tape = Recording(Path(folder))
    tape.add_facts(check_facts(facts))
    return tape


@dataclass(frozen=True)
class Recording:
    """A folder that is recorded into. Safe to use from several threads and processes."""

    folder: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: each message was complete when its call returned."""

    def add_facts(self, facts: Facts) -> None:
        """State what is known of the federation; what the folder holds already is not written.

        Raises:
            UsageError: The folder holds something else, or facts that contradict these.
            StorageError: The disk is full or may not be written.
        """
        path = self.folder / MANIFEST
        with storage_errors(self.folder):
            _make_private(self.folder)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = Manifest(
                version=VERSION, fedaudit=FEDAUDIT_VERSION, created=now, facts=facts
            )
            if not path.exists() and write_new(path, _json(manifest)):
                return
        before, _ = read_manifest(self.folder)
        _, clashes = merge(before.facts, facts)
        if clashes:
            name = clashes[0]
            raise UsageError(
                f"{self.folder} says {name} = {as_dict(before.facts)[name]!r}, and this recording "
                f"says {as_dict(facts)[name]!r}. One folder holds one run: record another run into "
                "a new folder."
            )
        news = {n: v for n, v in as_dict(facts).items() if n not in as_dict(before.facts)}
        if news:
            content = _json(replace(manifest, facts=check_facts(news)))
            digest = sha256(json.dumps(news, sort_keys=True).encode()).hexdigest()[:16]
            with storage_errors(self.folder):
                write_new(self.folder / f"facts-{digest}.json", content)

    def broadcast(self, round: int, tensors: Tensors, *, client: str | int | None = None) -> None:
        """Record what the server sends in a round, before clients answer it.

        Args:
            round: Number of the round.
            tensors: The state dict, by name.
            client: For whom, where clients are not sent the same.

        Raises:
            UsageError: The round already has another broadcast, or something is no tensor.
            StorageError: The disk is full or may not be written.
        """
        message = _message(
            what="broadcast", round=round, client=None if client is None else str(client)
        )
        name = "broadcast" if message.client is None else f"broadcast-{slug(message.client)}"
        path = self._round(message) / f"{name}.safetensors"
        contents = ready(tensors)
        message = replace(message, order=tuple(contents))
        if not write_message([path], {KEY: header_of(message)}, contents):
            raise UsageError(
                f"{path} holds another broadcast than this one. Is this another run? Use a new "
                "folder. Are clients sent different models? Say client=…."
            )

    def update(
        self,
        round: int,
        client: str | int,
        tensors: Tensors,
        *,
        kind: Kind,
        sign: Literal[1, -1] = 1,
        examples: int | None = None,
        aggregate: bool = False,
        weights: Sequence[float] | None = None,
        metrics: Mapping[str, object] | None = None,
        protections: Sequence[str] = (),
    ) -> None:
        """Record what a client sends in a round. The same message twice is kept once.

        Where the facts say `sampled`, most messages are passed over; aggregates never are. Where
        they say `precision`, what is kept of others than aggregates is rounded.

        It is measured, too: record the round's broadcast first, so that inspection
        need not read the tensors again.

        Args:
            round: Number of the round.
            client: Its name; any text.
            tensors: What it sent, by name.
            kind: "weights" after training, "delta" (local − global) or "gradient" (mean).
            sign: −1 where the tensors are the negative of `kind`.
            examples: Number of images that it says it trained on.
            aggregate: The tensors are a sum or mean over clients, and `client` names it.
            weights: w_k of each client in the aggregate Σ w_k · t_k, where they are known.
            metrics: What it sent beside the tensors: numbers, text, lists of numbers.
            protections: In use for this message, in words.

        Raises:
            UsageError: Something is no tensor, or a value cannot be kept.
            StorageError: The disk is full or may not be written.
        """
        manifest = self._manifest()
        if not (aggregate or drawn(manifest, round, str(client))):
            return
        facts = manifest.facts
        before = broadcast_before(self.folder, round, str(client), facts)
        rounded = None if aggregate else _rounded(tensors, kind, before, facts)
        if rounded and kind == "weights":
            kind, sign = "delta", 1
        contents, exponents = rounded or (ready(tensors), {})
        message = _message(
            what="update",
            round=round,
            client=str(client),
            kind=kind,
            sign=sign,
            examples=examples,
            aggregate=aggregate,
            weights=None if weights is None else tuple(weights),
            metrics=_plain(metrics or {}),
            protections=tuple(protections),
            version=2 if exponents else 1,
            exponents=exponents,
            order=tuple(contents),
        )
        folder, name = self._round(message), f"update-{slug(str(client))}"
        following = (folder / f"{name}.{number}.safetensors" for number in count(2))
        header = {KEY: header_of(message), **keep(facts, message, contents, before)}
        write_message(chain([folder / f"{name}.safetensors"], following), header, contents)

    def _manifest(self) -> Manifest:
        try:
            return read_manifest(self.folder)[0]
        except UsageError:  # not begun by `recording`: nothing was stated
            return Manifest(version=VERSION, fedaudit=FEDAUDIT_VERSION, created="")

    def _round(self, message: Message) -> Path:
        folder = round_folder(self.folder, message.round)
        with storage_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def _rounded(
    tensors: Tensors, kind: Kind, before: Before, facts: Facts
) -> tuple[dict[str, "Tensor"], dict[str, int]] | None:
    """As `round_update`, where that is asked for; None, too, where the broadcast is damaged."""
    if facts.precision is None:
        return None
    try:
        return round_update(tensors, kind, before[0], facts.buffers, facts.parameter_names or ())
    except CaptureError:
        return None


def _make_private(folder: Path) -> None:
    """Make a folder for a capture, or refuse one that holds something else."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file. Name a folder to record into.")
    others = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name != MANIFEST]
    # Looked for last: another process may be just about to start the capture.
    if others and not (folder / MANIFEST).exists():
        raise UsageError(
            f"{folder} is not empty and holds no capture. Name another folder, or a new one."
        )


def _message(**settings: Any) -> Message:
    try:
        return messages().validate_python({**settings, "received": time()})
    except ValidationError as error:
        raise ConfigError(f"a message of the recording: {first_problem(error)}") from error


def _plain(metrics: Mapping[str, object]) -> dict[str, object]:
    """Metrics as JSON holds them; NaN and infinity become text."""

    def plain(value: object) -> object:
        if isinstance(value, bool | int | str):
            return value
        if hasattr(value, "tolist"):  # numpy and torch
            return plain(value.tolist())
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)
        if isinstance(value, list | tuple):
            items = [plain(item) for item in value]
            return items if all(isinstance(i, int | float) for i in items) else str(items)
        return str(value)

    return {str(name): plain(value) for name, value in metrics.items()}


def _json(manifest: Manifest) -> bytes:
    return manifests().dump_json(manifest, indent=1)
