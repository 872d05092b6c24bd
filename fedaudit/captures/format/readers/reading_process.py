"""Read strangers' files in a process of its own, so that no file can end the program that asks.

One process reads file after file; one that dies or takes too long is ended, and the next file gets
a new one. What it answers is JSON, and a safetensors file that is checked like any other.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from torch import Tensor

from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.safetensors_file import load, read_header
from fedaudit.core.errors import CaptureError

_BYTES_A_SECOND = 5_000_000
_START = 300.0
"""Seconds in which a process must have started, on a busy machine."""
# Nothing in the current folder is imported: a capture may hold a file that is named like a module.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fedaudit.captures.format.readers.reading_worker import serve; serve()"
)


def read_apart(path: Path, limits: Limits, size: int) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes, read by another process.

    Raises:
        CaptureError: The file cannot be used, or its reader died, or took too long.
    """
    with _LOCK:
        return _READER.read(path, limits, limits.seconds + size / _BYTES_A_SECOND)


class _Reader:
    """The process that reads, started when the first file is there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def read(self, path: Path, limits: Limits, seconds: float) -> dict[str, Tensor]:
        folder = self._running(path)
        target = folder / "tensors.safetensors"
        question = {"path": str(path.absolute()), "limits": asdict(limits), "target": str(target)}
        answer = self._ask(path, question, seconds)
        if "reason" in answer:
            raise CaptureError(path, str(answer["reason"]), key=str(answer.get("key", "")))
        try:
            content = load(target, read_header(target, Limits()))
            return {name: content[str(place)] for place, name in enumerate(answer["names"])}
        except (CaptureError, KeyError) as error:
            raise CaptureError(path, f"its reader failed: {error}") from error
        finally:
            target.unlink(missing_ok=True)

    def end(self) -> None:
        """End the process, if it is ours."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            with suppress(OSError):  # what it was not told any more
                self.process.stdin.close()
            if self.folder is not None:
                self.folder.cleanup()
        self.process = self.folder = None

    def _running(self, path: Path) -> Path:
        """The folder of a process that runs."""
        alive = self.process is not None and self.process.poll() is None
        if not alive or self.owner != os.getpid():
            self.end()
            self._start(path)
        assert self.folder is not None
        return Path(self.folder.name)

    def _start(self, path: Path) -> None:
        places = [place for place in sys.path if place not in {"", os.getcwd()}]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        try:
            self.folder = tempfile.TemporaryDirectory(
                prefix="fedaudit-read-", ignore_cleanup_errors=True
            )
            self.process = subprocess.Popen(  # this Python, no shell  # nosec B603
                [sys.executable, "-I", "-c", _PROGRAM, json.dumps(places)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=quiet,
            )
        except OSError as error:
            raise CaptureError(path, f"no process to read it can be started: {error}") from error
        self.owner, self.lines = os.getpid(), SimpleQueue()
        threading.Thread(target=_listen, args=(self.process, self.lines), daemon=True).start()
        if self._line(path, _START) != b"ready\n":
            self.end()
            raise CaptureError(path, "the process that would read it does not start")

    def _ask(self, path: Path, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(path, seconds))
        except (OSError, ValueError) as error:
            self.end()
            raise CaptureError(
                path, "its reader died of it: it is damaged, or made to do harm"
            ) from error
        return answer

    def _line(self, path: Path, seconds: float) -> bytes:
        """The next line of the process; b"" when it has died."""
        try:
            return self.lines.get(timeout=seconds)
        except Empty:
            self.end()
            raise CaptureError(
                path, f"to read it takes more than {seconds:.0f} seconds: it is made to do harm"
            ) from None


def _listen(process: subprocess.Popen[bytes], lines: SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout as answers:
        for line in answers:
            lines.put(line)
    lines.put(b"")


_READER = _Reader()
_LOCK = threading.Lock()
atexit.register(_READER.end)
