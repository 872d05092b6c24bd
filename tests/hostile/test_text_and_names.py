"""Strangers' text on the terminal, names of models, and values that no program expects."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import fedaudit
from fedaudit.captures.format.readers.formats import read_tensors
from fedaudit.cli import cli, say
from fedaudit.cli.ending import LONGEST, end
from fedaudit.core.errors import CaptureError, ConfigError, RunFolderError, UsageError
from fedaudit.core.printable import printable, printable_json, printable_lines
from fedaudit.core.registry import check_settings
from fedaudit.files.lease import FOLDER, holding
from fedaudit.study.study_file import load_study

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\x00\x7f\u2066"
RAW = set(EVIL) - set("a[2J]0;owned31mgnp.exe")


def capture(folder: Path, model: str = "mlp") -> Path:
    """A capture whose every text would steer a terminal."""
    record = fedaudit.recording(
        folder, model=model, classes=5, lr=0.1, crop=EVIL, framework=EVIL, protections=(EVIL,)
    )
    state = {"head.weight": torch.randn(5, 4), "head.bias": torch.randn(5)}
    record.broadcast(1, state)
    moved = {name: value + 1 for name, value in state.items()}
    record.update(1, EVIL, moved, kind="weights", examples=2, metrics={EVIL: EVIL})
    damaged = next((folder / "round-000001").glob("update-*"))
    (damaged.parent / "update-\x1b[31mx.safetensors").write_bytes(damaged.read_bytes()[:-5])
    return folder


def test_nothing_on_the_terminal_is_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = capture(tmp_path / "c"), str(tmp_path / "run")
    for arguments in (
        ["inspect", str(folder)],
        ["inspect", str(folder), "--json"],
        ["audit", str(folder), "-o", run, "--dry-run"],
        ["audit", str(folder), "--client", EVIL, "-o", run, "--dry-run"],
        ["audit", str(tmp_path / EVIL), "-o", run, "--dry-run"],
        ["import", str(tmp_path / "b\x1b[2J\u202e.npz"), "-o", str(folder)],
    ):
        end(cli, arguments)
        out, err = capsys.readouterr()
        assert out + err
        assert not RAW & set(out + err), arguments
        assert len(err) < 5000
        assert "Missing" not in err


def test_commands_write_in_one_place() -> None:
    """Where what a stranger wrote is made printable."""
    for file in Path(say.__file__).parent.glob("*.py"):
        if file.name != "say.py":
            assert "click.echo" not in file.read_text(), file
            assert "click.secho" not in file.read_text(), file


def test_printed_json_means_the_same() -> None:
    text = json.dumps({EVIL: ["ä", "😀", "\U000e0001"]}, ensure_ascii=False)
    assert json.loads(printable_json(text)) == json.loads(text)
    assert not RAW & set(printable_json(text))
    assert printable_lines("a\nb\x1b", 100) == "a\nb\\x1b"
    assert len(printable_lines("a" * 5000, LONGEST)) == LONGEST
    assert printable("\ud800\u202e").isprintable()


def test_errors_are_short() -> None:
    error = CaptureError("f" * 10, "because " * 1000, key="k" * 5000)
    assert len(str(error)) < 600


@pytest.mark.slow
def test_a_network_of_a_library_is_not_looked_for_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')\n"
    for name in ("torchvision", "timm", "torch", "json"):
        (tmp_path / f"{name}.py").write_text(code)
    capture(tmp_path / "c")
    program = "from fedaudit.cli import main; main()"
    for model in ("torchvision:resnet18", "timm:resnet18"):
        arguments = ["audit", "c", "--model", model, "-o", "run", "--dry-run"]
        command = [sys.executable, "-P", "-c", program, *arguments]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "ImportError" not in ended.stderr
        assert not canary.exists(), model


def test_code_of_the_current_folder_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", kept := [place for place in sys.path if place])
    end(cli, ["audit", "c", "--model", "torchvision:resnet18", "-o", "run", "--dry-run"])
    assert str(tmp_path) not in kept
    end(cli, ["audit", "c", "--model", "own_networks:build", "-o", "run", "--dry-run"])
    assert kept[-1] == str(tmp_path)
    assert kept.count(str(tmp_path)) == 1


def test_two_members_of_one_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", w=np.zeros(2))
    content = zipfile.ZipFile(tmp_path / "one.npz").read("w.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w", content)
        archive.writestr("w.npy", content)
    with pytest.raises(CaptureError, match="two arrays of that name"):
        read_tensors(tmp_path / "a.npz")


def test_a_link_is_no_lease(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / FOLDER).symlink_to(target)
    with pytest.raises(RunFolderError, match="a link"), holding(folder):
        pass
    (folder / FOLDER).unlink()
    with holding(folder) as leases:
        (folder / FOLDER / "cell.1").symlink_to(target / "precious")
        with pytest.raises(RunFolderError, match="is a link"):
            leases.take("cell")
    assert (target / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "value", [float("nan"), 10**4000, 10**5000, [float("nan")]], ids=["nan", "4000", "5000", "list"]
)
def test_settings_that_are_no_number(value: object) -> None:
    with pytest.raises(ConfigError, match="max_norm must be") as raised:
        check_settings("defenses", "clipping", {"max_norm": value})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["fmr = " + "9" * 5000, "a = " + "[" * 100_000, "fmr = nan", 'name = "\x00"'],
    ids=["digits", "nested", "nan", "nul"],
)
def test_studies_that_no_one_wrote(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        load_study(tmp_path / "s.toml")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "9" * 4000, "[" * 200_000, "NaN", "1e999"],
    ids=["5000", "4000", "nested", "nan", "infinite"],
)
def test_manifests_that_no_one_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    fedaudit.recording(tmp_path, model="mlp", classes=5, lr=0.5)
    path = tmp_path / "capture.json"
    path.write_text(path.read_text().replace("0.5", value))
    assert end(cli, ["inspect", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err) < 500
