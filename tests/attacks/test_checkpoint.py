"""Checkpoints: whole or absent, private, and of one attack only."""

import stat
from pathlib import Path

import pytest
import torch

from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.trace import Trace
from fedaudit.core.errors import StorageError

STATE = {"faces": torch.rand(2, 3), "turn": torch.tensor(4)}


def test_what_was_saved_comes_back_and_only_to_the_same_attack(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished" / "cell.safetensors")
    assert checkpoint.load("mine") is None
    checkpoint.save("mine", {"step": 3, "history": [(1, 0.5)]}, STATE)
    kept = checkpoint.load("mine")
    assert kept is not None
    assert kept[0] == {"step": 3, "history": [[1, 0.5]]}
    assert all(torch.equal(kept[1][name], value) for name, value in STATE.items())
    assert checkpoint.load("another") is None
    checkpoint.clear()
    checkpoint.clear()
    assert checkpoint.load("mine") is None


def test_nobody_else_can_read_the_faces_in_it(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished" / "cell.safetensors")
    checkpoint.save("mine", {}, STATE)
    assert stat.S_IMODE(checkpoint.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(checkpoint.path.parent.stat().st_mode) == 0o700
    assert [file.name for file in checkpoint.path.parent.iterdir()] == ["cell.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"\xff" * 64])
def test_a_damaged_one_counts_as_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cell.safetensors"
    path.write_bytes(content)
    assert Checkpoint(path).load("mine") is None


def test_a_disk_that_refuses_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(StorageError, match="full"):
        Checkpoint(tmp_path / "cell.safetensors").save("mine", {}, STATE)


def test_the_trace_is_thinned_and_ends_with_the_last_step() -> None:
    reported: list[int] = []
    trace = Trace(25, lambda step, steps, value: reported.append(step))
    for k in range(25):
        trace.add(float(k))
    assert reported == [10, 20, 25]
    assert trace.history == [(10, 9.0), (20, 19.0), (25, 24.0)]
    assert not trace.time_is_up
