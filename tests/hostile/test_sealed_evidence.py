"""Encrypted evidence: no picture in the clear, runs go on without the key that opens them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sound_run import command, make_run, serially

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.files import sealed
from fedaudit.study import session

pytest.importorskip("pyrage")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "key.txt"


def test_what_is_sealed_is_opened_by_its_key_alone(tmp_path: Path, key: Path) -> None:
    made = command("runs", "keygen", key)
    public = made.output.strip()
    assert public.startswith("age1")
    assert key.stat().st_mode & 0o777 == 0o600
    file, other = tmp_path / "file.age", tmp_path / "other.txt"
    content = sealed.seal(b"a face", [public])
    file.write_bytes(content)
    assert sealed.unseal(file, key) == b"a face"
    sealed.make_identity(other)
    with pytest.raises(RunFolderError, match="cannot be opened"):
        sealed.unseal(file, other)
    for place in (0, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(RunFolderError, match="was altered"):
            sealed.unseal(file, key)
    file.write_bytes(content[:-20])
    with pytest.raises(RunFolderError, match="was altered"):
        sealed.unseal(file, key)


def test_what_is_no_key_is_refused(tmp_path: Path, key: Path) -> None:
    sealed.make_identity(key)
    secret = key.read_text().splitlines()[1]
    for text in ("age1nonsense", "ssh-ed25519 AAAA", "", secret):
        with pytest.raises(ConfigError, match="no public key") as refused:
            sealed.check_recipients([text])
        assert secret not in str(refused.value)
    with pytest.raises(ConfigError, match="is not overwritten"):
        sealed.make_identity(key)
    (tmp_path / "empty").write_text("# nothing\n")
    for file in ("empty", "missing"):
        with pytest.raises(ConfigError, match="holds no private key"):
            sealed.unseal(tmp_path / "x", tmp_path / file)


@pytest.mark.slow
def test_a_sealed_run(
    tmp_path: Path, key: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = sealed.make_identity(key)
    run = make_run(tmp_path, ("--evidence", "full", "--encrypt-evidence", public))

    closed = list(run.rglob("*.age"))
    assert {file.parent.name for file in closed} == {"cells", "evidence"}
    assert all(file.read_bytes().startswith(b"age-encryption.org/v1") for file in closed)
    assert {file.parent.name for file in run.rglob("*.safetensors")} <= {"models"}
    page = (run / "report.html").read_text()
    assert "data:image/png" not in page
    assert "Pictures are sealed for" in page
    assert json.loads(command("verify", run, "--json").output)["sound"]

    ours, clear = (json.loads((r / "results.json").read_text()) for r in (run, sound))
    assert ours["headline"] == clear["headline"]
    assert [r["measurement"]["reid"] for r in ours["rows"]] == [
        r["measurement"]["reid"] for r in clear["rows"]
    ]

    faces = tmp_path / "faces.html"
    words = ("report", run, "--evidence", "full", "--identity", key)
    command(*words, "--output", faces)
    shown = faces.read_text()
    pictures = (sound / "report.html").read_text().count("data:image/png")
    assert shown.count("data:image/png") == pictures > 0
    assert "needs --evidence full and --output" in str(command(*words).exception)
    inside = command(*words, "--output", run / "faces.html")
    assert "lies in the run folder" in str(inside.exception)
    assert "data:image/png" not in (run / "report.html").read_text()
    sealed.make_identity(tmp_path / "other.txt")
    wrong = command(*words[:-1], tmp_path / "other.txt", "--output", faces)
    assert "cannot be opened with" in str(wrong.exception)

    # A run goes on without the key, and nothing of it is written in the clear.
    cell = next((run / "cells").glob("*--audit--*.json"))
    for file in (cell, cell.with_suffix(".safetensors.age")):
        file.unlink()
    monkeypatch.setattr(session, "execute", serially)
    again = ("run", tmp_path / "study.toml", "-o", run, "--workers", "1")
    assert command(*again).exception is None
    assert cell.with_suffix(".safetensors.age").exists()
    assert json.loads(command("verify", run, "--json").output)["sound"]
    other = sealed.make_identity(tmp_path / "third.txt")
    assert "was begun with evidence for" in str(
        command(*again, "--encrypt-evidence", other).exception
    )

    # One byte of a sealed picture is enough to be seen, by anybody.
    path = cell.with_suffix(".safetensors.age")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    answer = json.loads(command("verify", run, "--json").output)
    assert answer["differences"]["altered"] == [f"cells/{path.name}"]


def test_evidence_that_lies_open_is_not_said_to_be_sealed(
    sound: Path, tmp_path: Path, key: Path
) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    public = sealed.make_identity(key)
    words = ("run", sound.parent / "study.toml", "-o", run, "--encrypt-evidence", public)
    assert "it is not encrypted" in str(command(*words).exception)
    refused = command(*words[:-1], "age1nonsense")
    assert "no public key" in str(refused.exception)
