"""`fedaudit runs rm`: what shows people is gone, on the record, and everything else still holds."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

sys.path.insert(0, str(Path(__file__).parent))
from sound_run import command, serially

from fedaudit.study import hash_list, removal_record, session
from fedaudit.study.removal import remove_evidence

WORDS = ("--evidence", "--by", "A. Lee <b>", "--reason", "retention ended", "--yes")


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "run")


def removed(run: Path, *more: str) -> Path:
    result = command("runs", "rm", run, *WORDS, *more)
    assert result.exception is None, result.exception
    return run


def verified(run: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(command("verify", run, "--json").output)
    return answer


def faults(run: Path) -> str:
    """What `verify` says of the files, without making the report again."""
    found = hash_list.compare(run, hash_list.read(run))
    said = [*removal_record.faults_of(run, hash_list.root(run))]
    said += [f"missing: {name}" for name in found.missing]
    return "\n".join(said + [f"altered: {name}" for name in found.altered])


def record(run: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((run / "removal.json").read_text())
    return content


def test_pictures_are_gone_and_numbers_hold(run: Path) -> None:
    before = json.loads((run / "results.json").read_text())
    assert "data:image/png" in (run / "report.html").read_text()
    root = hash_list.root(run)
    listed = hash_list.read(run)
    removed(run)
    assert not list(run.rglob("*.safetensors.age"))
    left = {file.relative_to(run).parts[0] for file in run.rglob("*.safetensors")}
    assert left <= {"models"}
    page = (run / "report.html").read_text()
    assert "data:image/png" not in page
    assert "retention ended" in page
    assert "A. Lee &lt;b&gt;" in page
    assert json.loads((run / "results.json").read_text()) == before
    assert hash_list.root(run) == root
    (one,) = record(run)
    assert one["root"] == root
    assert {name: listed[name] for name in one["files"]} == one["files"]
    answer = verified(run)
    assert answer["sound"], answer
    assert len(answer["removed"]) == 1
    assert "evidence removed on" in command("verify", run).output
    shown = json.loads(command("runs", "show", run, "--json").output)
    assert shown["state"] == "finished"
    assert "A. Lee" in shown["removed"][0]


def _other_file(run: Path) -> str:
    """A score cannot be passed off as removed."""
    cell = next((run / "cells").glob("*--audit--*.json"))
    content = record(run)
    content[0]["files"][f"cells/{cell.name}"] = hash_list.read(run)[f"cells/{cell.name}"]
    (run / "removal.json").write_text(json.dumps(content))
    cell.unlink()
    return "shows nobody and is never removed"


def _other_hash(run: Path) -> str:
    content = record(run)
    name = next(iter(content[0]["files"]))
    content[0]["files"][name] = "0" * 64
    (run / "removal.json").write_text(json.dumps(content))
    return f"missing: {name}"


def _put_back(run: Path) -> str:
    name = next(iter(record(run)[0]["files"]))
    (run / name).write_bytes(b"another face")
    return f"{name} is there"


def _no_record(run: Path) -> str:
    (run / "removal.json").unlink()
    return "missing: evidence/"


def _other_root(run: Path) -> str:
    (run / "removal.json").write_text(json.dumps([record(run)[0] | {"root": "0" * 64}]))
    return "is of another state of this folder"


def _numbers(run: Path) -> str:
    path = run / "gallery.json"  # what the report reads where there are no templates
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.99}))
    return "altered: gallery.json"


EDITS = [_other_file, _other_hash, _put_back, _no_record, _other_root, _numbers]


@pytest.mark.parametrize("edit", EDITS)
def test_a_removal_hides_nothing_else(run: Path, edit: Any) -> None:
    remove_evidence(run, "A. Lee", "retention ended")
    assert not faults(run)
    what = edit(run)
    assert what in faults(run)


def test_a_file_that_was_altered_before_its_removal_stays_altered(run: Path) -> None:
    path = next((run / "evidence").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    remove_evidence(run, "A. Lee", "retention ended")
    assert faults(run) == f"missing: evidence/{path.name}"


def test_a_signed_record_cannot_be_edited(run: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made = remove_evidence(run, "A. Lee", "retention ended", key)
    assert made is not None
    assert made.key in made.sentence
    assert not faults(run)
    content = record(run)
    content[0]["by"] = "somebody else"
    (run / "removal.json").write_text(json.dumps(content))
    assert "A signature in removal.json does not fit" in faults(run)


def test_an_interrupted_removal_is_ended_by_the_next(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "evidence", tmp_path / "kept")
    remove_evidence(run, "A. Lee", "retention ended")
    shutil.copytree(tmp_path / "kept", run / "evidence", dirs_exist_ok=True)
    assert "is there, and removal.json says that it was removed" in faults(run)
    assert remove_evidence(run, "A. Lee", "retention ended") is None
    assert not faults(run)


def test_nothing_is_added_afterwards(
    run: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_evidence(run, "A. Lee", "retention ended")
    monkeypatch.setattr(session, "execute", serially)
    words = ("run", sound.parent / "study.toml", "-o", run, "--workers", "1")
    assert command(*words).exception is None
    next((run / "cells").glob("*--audit--*.json")).unlink()
    assert "nothing is added" in str(command(*words).exception)


def test_a_run_is_removed_whole_or_not_at_all(run: Path, tmp_path: Path) -> None:
    mine = run / "notes.txt"
    mine.write_text("mine")
    assert "notes.txt" in str(command("runs", "rm", run, "--yes").exception)
    assert (run / "study.json").exists()
    mine.unlink()
    (tmp_path / "link").symlink_to(run)
    assert "is a link" in str(command("runs", "rm", tmp_path / "link", "--yes").exception)
    assert "not a run folder" in str(command("runs", "rm", tmp_path, "--yes").exception)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (run / "damaged").symlink_to(outside)
    assert command("runs", "rm", run, "--yes").exception is None
    assert not run.exists()
    assert (outside / "file").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--evidence", "--yes"), "needs --by"),
        (("--by", "me", "--yes"), "unrecorded"),
        (("--evidence", "--by", " ", "--reason", "b", "--yes"), "must say something"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, words: tuple[str, ...], what: str) -> None:
    assert what in str(command("runs", "rm", run, *words).exception)
    assert not (run / "removal.json").exists()
    assert not faults(run)
