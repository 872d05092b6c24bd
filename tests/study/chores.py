"""Work for the executor's tests; a module of its own, because worker processes import it."""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from fedaudit.core.errors import AttackError
from fedaudit.core.seeds import generator_for


@dataclass(frozen=True)
class Chore:
    key: str
    what: str = "write"
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Do:
    folder: Path

    def __call__(self, chore: Chore) -> None:
        attempts = self.folder / f"{chore.key}.attempts"
        with attempts.open("a") as file:
            file.write("x")
        if chore.what == "fail":
            raise AttackError("it did not converge")
        if chore.what == "crash":
            raise ZeroDivisionError("by zero")
        if chore.what == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        if chore.what == "sleep":
            time.sleep(60)
        while chore.what == "await" and not (self.folder / "prepared").exists():
            time.sleep(0.05)
        while chore.what == "loop":
            pass
        if chore.what == "hoard":
            held = bytearray(os.urandom(1 << 20) * 1500)
            time.sleep(60)
            del held
        if chore.what == "stop" or (chore.what == "stop once" and len(attempts.read_text()) < 2):
            os.kill(os.getpid(), signal.SIGSTOP)
        if chore.what == "die" or (chore.what == "die once" and len(attempts.read_text()) < 2):
            os.kill(os.getpid(), signal.SIGKILL)
        print("stdout of a worker is not data")  # noqa: T201
        images = torch.rand(64, 300, generator=generator_for(chore.key))
        # A matrix product: with another number of threads it would have other bytes.
        (self.folder / chore.key).write_bytes((images @ images.T).numpy().tobytes())


class DoPrepared(Do):
    def prepare(self) -> None:
        (self.folder / "prepared").touch()
        raise AttackError("a job that needs it will say so")
