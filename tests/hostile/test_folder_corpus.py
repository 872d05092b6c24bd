"""Damaged and forged run folders and studies, given to every command that takes one.

Each ends in one clean message or a right result; nothing in it is run, followed or waited for.
"""

import os
import random
import resource
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "why"))
from damage import EVIL, damage, study_text
from made_up_explanation import made_up
from signing import edit_record
from sound_run import NAMES, STUDY

from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.errors import UsageError
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.study import session
from fedaudit.study.study_file import study_from_mapping

SEED = 20_261_126
RAW = set(EVIL) - set(map(chr, range(32, 127)))
FEW, MANY, STUDIES = 40, 300, 100
READING = (
    ("compare", "RUN"),
    ("report", "RUN", "--evidence", "full"),
    ("report", "RUN", "--evidence", "none", "--fail-on", "high"),
    ("compare", "RUN", "--format", "json"),
    ("recommend", "RUN", "--max-reid", "0.5", "--min-accuracy", "0.5"),
    ("verify", "RUN"),
    ("run", "STUDY", "-o", "RUN", "-q", "--workers", "1"),
    ("run", "STUDY", "-o", "RUN", "--dry-run"),
    ("why", "RUN"),
)


class Folder:
    """A run folder that is damaged again and again, and made sound in between."""

    def __init__(self, sound: Path, place: Path) -> None:
        self.run, self.canary, self.study = place / "run", place / "CANARY", sound.parent
        shutil.copytree(sound, self.run)
        for model in (self.run / "models").glob("*.safetensors"):
            assert model.stat().st_size > 0
        (self.run / "why.json").write_bytes(canonical_bytes(made_up()))
        self.files = {p: p.read_bytes() for p in self.run.rglob("*") if p.is_file()}

    def mend(self) -> None:
        """Make it sound again."""
        for path in sorted(self.run.rglob("*"), reverse=True):
            if path not in self.files and not (path.is_dir() and not path.is_symlink()):
                path.unlink()
        for path, content in self.files.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            for folder in reversed(path.relative_to(self.run).parents[:-1]):
                place = self.run / folder
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    place.unlink()
                place.mkdir(exist_ok=True)
            regular = (
                not path.is_symlink() and path.exists() and stat.S_ISREG(os.lstat(path).st_mode)
            )
            if not regular or path.stat().st_size != len(content) or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.write_bytes(content)

    def words(self, command: tuple[str, ...]) -> list[str]:
        """A command line."""
        known = {"RUN": str(self.run), "STUDY": str(self.study / "study.toml")}
        return [known.get(word, word) for word in command]


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.delenv("FEDAUDIT_DEBUG", raising=False)
    monkeypatch.setattr(session, "execute", lambda *_, **__: ())  # computes nothing
    made = Folder(sound, tmp_path)
    yield made
    assert not made.canary.exists()
    assert not (tmp_path / "elsewhere").exists()


def check(folder: Folder, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command on a folder; its exit code. Whatever is not clean fails."""
    began = time.process_time()  # what waits for a pipe ends by the suite's own limit
    code = end(cli, folder.words(command))
    out, err = capsys.readouterr()
    assert time.process_time() - began < 10
    assert code in {0, 1, 2, 3, 4}, err
    assert "not your data's fault" not in err, err
    assert not RAW & set(out + err)
    assert len(err) < 30_000
    assert not folder.canary.exists()
    assert not any(name in out + err for name in NAMES)
    return code


def go_through(folder: Folder, count: int, capsys: pytest.CaptureFixture[str], turn: int) -> None:
    """Damage the folder so many times; every command has its turn, the first has more."""
    draw, memory = random.Random(SEED), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes: dict[int, int] = {}
    for number in range(count):
        what = damage(folder.run, draw, folder.canary)
        command = READING[0] if number % turn else READING[number // turn % len(READING)]
        try:
            code = check(folder, command, capsys)
        except BaseException as error:
            error.add_note(f"input {number}: {what}; {' '.join(command)}")
            raise
        codes[code] = codes.get(code, 0) + 1
        folder.mend()
    assert sum(codes.values()) == count
    assert codes.get(4, 0) > count // 10  # refused
    assert codes.get(0, 0) + codes.get(3, 0) > count // 10  # read, with a right result
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 600_000


@pytest.mark.slow
def test_run_folders(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    go_through(folder, FEW, capsys, turn=15)


@pytest.mark.slow
def test_more_run_folders_at_every_command(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    go_through(folder, MANY, capsys, turn=1)


def test_a_sound_folder_is_read_by_all(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the outcomes above would say little."""
    codes = [check(folder, command, capsys) for command in READING[:2]]
    assert set(codes) <= {0, 3}


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_score_may_be_anything(
    folder: Folder, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    cell = data.draw(st.sampled_from(sorted((folder.run / "cells").glob("*.json"))))
    field = data.draw(st.sampled_from(sorted(FIELDS)))
    value = data.draw(values)

    def edit(body: dict[str, object]) -> dict[str, object]:
        images = body["images"]
        assert isinstance(images, list)
        (images[0] if field in SCORES else body)[field] = value
        return body

    folder.mend()
    (folder.run / "SHA256SUMS").unlink(missing_ok=True)
    edit_record(cell, edit)
    check(folder, ("compare", "RUN"), capsys)


SCORES = {"person", "metrics", "cosine", "reidentified", "rank", "wrong_reidentified", "nearest"}
FIELDS = SCORES | {
    "images", "labels_correct", "objective", "iterations", "seconds", "adaptive", "budget", "of",
    "history", "sent", "not_attacked", "explained",
}  # fmt: skip


def test_studies(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw, canary = random.Random(SEED), tmp_path / "CANARY"
    path, refused = tmp_path / "study.toml", 0
    words = ["run", str(path), "--output", str(tmp_path / "run")]
    shutil.copytree(sound.parent / "faces", tmp_path / "faces")
    for number in range(STUDIES):
        path.write_bytes(study_text(STUDY, draw, canary))
        began, code = time.process_time(), end(cli, [*words, "--dry-run"])
        out, err = capsys.readouterr()
        assert code in {0, 2}, (number, err)
        assert "not your data's fault" not in err, (number, err)
        assert not RAW & set(out + err)
        assert len(err) < 5000
        refused += code == 2
        assert time.process_time() - began < 10
        assert not canary.exists()
    assert refused > STUDIES // 2
    assert refused < STUDIES


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "data", "scenario", "attacks", "defenses", "targets", "federation"]
                )
                | st.text(max_size=5),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_a_study_may_say_anything(table: object) -> None:
    for study in ({"name": "s", "scenario": table}, table if isinstance(table, dict) else {}):
        with suppress(UsageError):  # and nothing else
            study_from_mapping(study)
