"""Nobody's name leaves the folders of photos: not into the run folder, nor onto the terminal."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from signing import edit_manifest
from sound_run import NAMES, command, make_faces

from fedaudit.cli.run_study import kept_command
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.data.face_set import FaceSet
from fedaudit.data.folder import folder
from fedaudit.data.orl import orl
from fedaudit.data.pseudonyms import (
    hide_names,
    key_of_faces,
    nameless_errors,
    names_behind,
    pseudonym,
)
from fedaudit.study import manifest


def spellings(name: str) -> tuple[bytes, ...]:
    """A name, its parts, and as JSON writes them."""
    parts = [name, *(p for p in name.replace("-", " ").replace("_", " ").split() if len(p) > 4)]
    return tuple(
        {f(p) for p in parts for f in (str.encode, lambda p: json.dumps(p)[1:-1].encode())}
    )


@pytest.mark.slow
def test_a_run_names_nobody(sound: Path) -> None:
    """Evidence is full here, which shows more, and all the same nobody is named."""
    said = "".join(
        result.output + result.stderr
        for result in (
            command("report", sound, "--evidence", "full"),
            command("report", sound),
            command("compare", sound),
            command("compare", sound, "--format", "json"),
            command("recommend", sound, "--max-reid", "1", "--min-accuracy", "0"),
            command("verify", sound),
            command("run", sound.parent / "study.toml", "-o", sound),
            command("run", sound.parent / "study.toml", "-o", sound, "--dry-run"),
        )
    ).encode()
    files = [file for file in sound.rglob("*") if file.is_file()]
    assert len(files) > 20
    for name in NAMES:
        for spelled in spellings(name):
            assert spelled not in said
            for file in files:
                assert spelled not in file.read_bytes(), (spelled, file)
                assert spelled not in str(file.relative_to(sound)).encode()
    people = {
        image["person"]
        for file in (sound / "cells").glob("*.json")
        for image in json.loads(file.read_text())["body"]["images"]
    }
    assert people
    assert all(person.startswith("person-") for person in people)


def test_who_has_the_photos_can_tell(sound: Path) -> None:
    known = json.loads(command("names", sound, "--json").output)
    assert sorted(known.values()) == sorted(NAMES)
    records = [file.read_text() for file in (sound / "cells").glob("*.json")]
    assert any(one in record for one in known for record in records)
    lines = command("names", sound).output.splitlines()
    assert {tuple(line.split("\t")) for line in lines} == set(known.items())


def test_names_of_a_run_never_run_code(sound: Path, tmp_path: Path) -> None:
    content = json.loads((sound / manifest.FILE).read_text())
    content["study"]["data"] = {"name": "os:mkdir", "label": "x", "path": str(tmp_path / "PWNED")}
    run = tmp_path / "run"
    run.mkdir()
    (run / manifest.FILE).write_text(json.dumps(content))
    edit_manifest(run, lambda same: same)
    assert isinstance(command("names", run).exception, ConfigError)
    assert not (tmp_path / "PWNED").exists()


def test_pseudonyms_need_the_photos(tmp_path: Path) -> None:
    faces = folder(path=str(make_faces(tmp_path / "faces", photos=2)), size=16)
    key = key_of_faces(faces)
    hidden = hide_names(faces, key)
    assert names_behind(faces.people, key) == dict(
        zip(hidden.people, (_name_of(hidden, faces, k) for k in range(16)), strict=True)
    )
    assert [*hidden.people] == sorted(hidden.people)  # whose order says nothing of names
    assert [*hidden.people[::2]] != [pseudonym(n, key) for n in sorted(NAMES)]
    altered = faces.images.clone()
    altered[0, 0, 0, 0] = 1 - altered[0, 0, 0, 0].round()
    assert key_of_faces(replace(faces, images=altered)) != key
    assert pseudonym("a", key) != pseudonym("a", key_of_faces(replace(faces, images=altered)))


def _name_of(hidden: FaceSet, faces: FaceSet, place: int) -> str:
    """Who is shown, whatever they are called."""
    same = [k for k, image in enumerate(faces.images) if torch.equal(image, hidden.images[place])]
    return faces.people[same[0]]


def test_public_sets_keep_their_names() -> None:
    assert orl(size=16).public


def test_errors_of_a_run_name_nobody() -> None:
    with pytest.raises(DataError, match="--dry-run says which") as raised, nameless_errors():
        raise DataError("faces/Adelheid Zwirnlein/1.png cannot be read")
    assert "Adelheid" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_the_command_that_a_run_keeps_names_nobody() -> None:
    words = ["audit", "c", "--truth", "client-7=photos/Anna K", "--truth=photos/Anna K", "-o", "r"]
    assert kept_command(words) == "fedaudit audit c --truth client-7=… --truth=… -o r"
