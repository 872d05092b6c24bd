"""What an attack left to go on from, and what it learned: read again only where it is whole."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.core.errors import StorageError
from fedaudit.files import cache
from fedaudit.files.atomic import append_line, write_atomically


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10] ^= 0x55
    path.write_bytes(content)


def _deep(path: Path) -> None:
    text = b'{"__metadata__": ' + b"[" * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


DAMAGES = [_cut, _flip_header, _deep, _pipe, _device, _endless]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_is_not_whole_is_none(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    checkpoint = Checkpoint(tmp_path / "c.safetensors")
    checkpoint.save("f", {"step": 3}, {"w": torch.ones(3)})
    kept = checkpoint.load("f")
    assert kept is not None
    assert kept[0] == {"step": 3}
    damage(checkpoint.path)
    assert checkpoint.load("f") is None
    checkpoint.save("f", {"step": 4}, {"w": torch.ones(3)})
    assert checkpoint.load("f") is not None
    assert not Path("/dev/zero").is_file()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_learned_and_is_not_whole_is_learned_anew(
    tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path))
    calls: list[int] = []

    def learn() -> dict[str, Tensor]:
        calls.append(1)
        return {"w": torch.ones(3)}

    for _ in range(2):
        cache.load_or_learn("k", learn, None, what="toys")
    assert len(calls) == 1
    damage(tmp_path / "learned" / "k.safetensors")
    cache.list_entries()  # `fedaudit cache ls` waits for nothing
    for _ in range(2):
        assert torch.equal(cache.load_or_learn("k", learn, None, what="toys")["w"], torch.ones(3))
    assert len(calls) == 2


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    log = tmp_path / "log.jsonl"
    log.symlink_to(target)
    with pytest.raises(StorageError, match="it is a link"):
        append_line(log, "{}")
    write_atomically(log, b"new")  # which replaces the link
    assert target.read_text() == "precious"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match="something else stands there"):
        append_line(pipe, "{}")
