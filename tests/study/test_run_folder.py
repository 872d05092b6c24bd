import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.claims import Claim, Gap, Spending
from fedaudit.core.errors import ConfigError, RunFolderError, StorageError, UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.trial import Cell, ImageScore, Trial
from fedaudit.files.atomic import MARK, append_line, write_atomically
from fedaudit.study import manifest, session
from fedaudit.study.job_record import hash_of_record
from fedaudit.study.jobs import expand
from fedaudit.study.run_folder import FAILED, RunFolder
from fedaudit.study.shared_jobs import record_failure

STUDY = Study(
    "s",
    (Scenario("fresh", targets=2, attacks=(Choice("quick"),), controls=False),),
)


def trial(target: int = 0) -> Trial:
    cells = [job.key for job in expand(STUDY)]
    cell = Cell("fresh", "face", "fedsgd", 1, 1, "none", "quick", "D", target, 0)
    assert cell.key in cells
    score = ImageScore("ä'<s1>", {"ssim": 0.1 + 0.2}, cosine=0.5, reidentified=True, rank=1)
    claim = Claim(
        epsilon=8.0,
        delta=1e-5,
        unit="image",
        neighbors="add or remove one",
        covers=("update",),
        gaps=(Gap("counts", "in clear"),),
        mechanism="DP-SGD",
        settings={"C": 1.0},
        accountant="opacus prv",
        spendings=(Spending("gaussian", 2, 1.5, 0.5),),
    )
    return Trial(cell, (score,), 1.0, 0.5, 3, 9, 1.5, "known", (claim,), ((1, 0.5), (2, 0.25)))


def opened(path: Path, **settings: Any) -> RunFolder:
    with session.open_run(path, settings.pop("study", STUDY), **settings) as run:
        return run.folder


def test_trials_come_back_whole(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    images = torch.rand(2, 3, 4, 4)
    folder.save_trial(trial(), {"images": images, "part": images[:, :1]})
    key = trial().cell.key
    assert folder.trial(key) == trial()
    assert torch.equal(folder.tensors(key)["part"], images[:, :1])
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert folder.files("cells", key)[0].stat().st_mode & 0o777 == 0o600


def test_nan_is_kept(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    cell = trial().cell
    folder.save_trial(Trial(cell, (), None, float("nan"), 0, 0, 0.0, "no"), {})
    assert folder.trial(cell.key).objective != folder.trial(cell.key).objective


def test_models_and_evidence(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    folder.save_model("m", {"w": torch.ones(2)}, {"accuracy": 0.75})
    assert folder.measured("m") == {"accuracy": 0.75}
    assert torch.equal(folder.model("m")["w"], torch.ones(2))
    assert folder.evidence("fresh", 1) is None
    folder.save_evidence("fresh", 1, {"images": torch.zeros(1)})
    evidence = folder.evidence("fresh", 1)
    assert evidence is not None
    assert torch.equal(evidence["images"], torch.zeros(1))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _other_key(path: Path) -> None:
    path.write_text(path.read_text().replace("t000", "t001"))


def _other_cell(path: Path) -> None:
    record = json.loads(path.read_text())
    record["body"]["cell"]["target"] = 1
    path.write_text(json.dumps(record))


def _wrong_type(path: Path) -> None:
    record = json.loads(path.read_text())
    record["body"]["images"] = "none"
    path.write_text(json.dumps(record))


def _edited_score(path: Path) -> None:
    path.write_text(path.read_text().replace('"ssim": 0.3', '"ssim": 0.9'))


def _other_commit(path: Path) -> None:
    path.write_text(path.read_text().replace('"fedaudit": "', '"fedaudit": "9'))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (0, _truncate),
        (0, _other_key),
        (0, _other_cell),
        (0, _wrong_type),
        (0, _edited_score),
        (0, _other_commit),
        (0, lambda path: path.write_text("3")),
        (1, _truncate),
        (1, _flip),
        (1, Path.unlink),
    ],
)
def test_a_damaged_cell_is_reported_and_done_again(
    tmp_path: Path, suffix: int, damage: Any
) -> None:
    path = tmp_path / "run"
    folder = opened(path)
    for target in (0, 1):
        folder.save_trial(trial(target), {"images": torch.rand(1, 3, 4, 4)})
    key = trial().cell.key
    damage(folder.files("cells", key)[suffix])
    _, _, stock = session.open_report(path)
    assert list(stock.damaged) == [key]
    assert "is damaged" in stock.damaged[key]
    assert "computes it again" in stock.damaged[key]
    assert stock.done == (trial(1).cell.key,)
    with pytest.raises(RunFolderError, match="is damaged"):
        folder.trial(key)
    with session.open_run(path, STUDY) as run:
        assert key in [job.key for job in run.todo]
        assert key in run.inventory.damaged
    assert not folder.files("cells", key)[0].exists()
    assert any(file.name.startswith(key) for file in (path / "damaged").iterdir())
    with pytest.raises(RunFolderError, match="is missing"):
        folder.trial(key)


def test_failures_are_listed_until_they_succeed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder = opened(path)
    key = trial().cell.key
    record_failure(path, key, "first")
    record_failure(path, key, "second")
    (path / FAILED / "of another study.json").write_text("{}")
    assert session.open_report(path)[2].failed == {key: "second"}
    with session.open_run(path, STUDY) as run:
        assert key not in [job.key for job in run.todo]
        assert run.failed == {key: "second"}
    with session.open_run(path, STUDY, retry_failed=True) as run:
        assert key in [job.key for job in run.todo]
    assert session.open_report(path)[2].failed == {}
    (path / FAILED / f"{key}.json").write_text("[")
    assert "cannot be read" in session.open_report(path)[2].failed[key]
    folder.save_trial(trial(), {})
    assert session.open_report(path)[2].failed == {}


def test_the_log_outlives_a_crash(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"event": "ses')  # a crash in the middle of a line
    folder.log(event="session", seconds=1)
    assert [event["event"] for event in folder.events()] == ["session"]


def test_another_study_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    path = tmp_path / "run"
    opened(path)
    scenario = Scenario("fresh", targets=2, attacks=(Choice("quick", {"a": 1}),), controls=False)
    with pytest.raises(RunFolderError, match=r"scenario\[0\].attacks\[0\].a is only in this study"):
        opened(path, study=Study("s", (scenario,)))
    with pytest.raises(RunFolderError, match=r"size is 64 there and 32 here. .* --output"):
        opened(path, study=Study("s", STUDY.scenarios, size=32))
    with pytest.raises(RunFolderError, match="scenario has 1 entries there and 2 here"):
        opened(path, study=Study("s", (*STUDY.scenarios, Scenario("b"))))
    with pytest.raises(RunFolderError, match="another study"):
        session.preview(path, Study("t", STUDY.scenarios))


def test_an_altered_gallery_is_refused(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    assert folder.shared_tensors("gallery") is None
    folder.save_shared_tensors("gallery", {"reference/a": torch.ones(2, 3), "b": torch.zeros(1)})
    kept = folder.shared_tensors("gallery")
    assert kept is not None
    assert torch.equal(kept["reference/a"], torch.ones(2, 3))
    for damage in (_flip, _truncate):
        damage(tmp_path / "run/gallery.safetensors")
        with pytest.raises(
            RunFolderError, match=r"gallery\.safetensors' is damaged: it is not what"
        ):
            folder.shared_tensors("gallery")


def test_what_only_the_report_shows_may_change(tmp_path: Path) -> None:
    path = tmp_path / "run"
    opened(path, command="fedaudit run")
    opened(path, study=Study("s", STUDY.scenarios, description="new"))
    _, read, _ = session.open_report(path)
    assert read.study.description == "new"
    assert read.command == "fedaudit run"


def test_other_versions_and_levels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    opened(path)
    with pytest.raises(ConfigError, match="begun with --evidence redacted"):
        opened(path, evidence="full")
    monkeypatch.setattr("fedaudit.study.manifest.VERSION", "9.9")
    with pytest.raises(RunFolderError, match=r"begun by fedaudit .* and this is 9.9"):
        opened(path)
    session.open_report(path)  # reading is fine
    content = json.loads((path / "study.json").read_text())
    (path / "study.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(RunFolderError, match=r"has run-folder format 99, .* reads format 3"):
        session.open_report(path)


def test_folders_of_an_earlier_why_are_refused_with_their_version(tmp_path: Path) -> None:
    (tmp_path / "question.json").write_text('{"schema": "1", "version": "0.0.9"}')
    (tmp_path / "why.json").write_text("{}")
    wrong = r"has run-folder format 1, .* Use fedaudit 0.0.9"
    with pytest.raises(RunFolderError, match=wrong):
        opened(tmp_path)
    with pytest.raises(RunFolderError, match=wrong):
        session.open_report(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "3", '{"format": 3}', '{"format": 3, "study": {"name": "x"}}'],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run"
    opened(path)
    (path / "study.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"study.json' is damaged|run-folder format"):
        opened(path)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    opened(path)
    text = (path / "study.json").read_text()
    (path / "study.json").write_text(text.replace('"size": 64', '"size": 32'))
    with pytest.raises(RunFolderError, match="as if it was edited"):
        opened(path)
    (path / "study.json").write_text(text.replace('"redacted"', '"some"'))
    with pytest.raises(RunFolderError, match="evidence 'some'"):
        opened(path)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match=r"not a run's \('letter.txt'\)"):
        opened(tmp_path)
    with pytest.raises(RunFolderError, match="is a file"):
        opened(tmp_path / "letter.txt")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        session.open_report(tmp_path)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    folder = opened(path)
    folder.save_trial(trial(), {"images": torch.zeros(1)})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full. Nothing that was finished is lost"):
        folder.save_trial(trial(1), {"images": torch.ones(1)})
    with pytest.raises(StorageError, match=r"log.jsonl"):
        folder.log(event="session")
    monkeypatch.undo()
    assert not list(path.glob(f"*/{MARK}*"))
    assert torch.equal(folder.tensors(trial().cell.key)["images"], torch.zeros(1))
    with pytest.raises(RunFolderError, match="is missing"):
        folder.trial(trial(1).cell.key)


def test_the_first_record_of_a_cell_stays(tmp_path: Path) -> None:
    """A process that stood still while another took over its cell writes too late."""
    folder = opened(tmp_path / "run")
    folder.save_trial(trial(), {"images": torch.zeros(1)})
    folder.save_trial(replace(trial(), seconds=9.0), {"images": torch.ones(1)})
    assert folder.trial(trial().cell.key) == trial()
    assert torch.equal(folder.tensors(trial().cell.key)["images"], torch.zeros(1))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_refused_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: Any, **settings: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="give the same command again"):
        write_atomically(tmp_path / "x", b"")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError):
        opened(tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a kernel that shows /proc")
def test_a_place_where_nothing_can_be_made_is_refused_and_foretold() -> None:
    path = Path("/proc/fedaudit-run/a")
    with pytest.raises(UsageError, match=r"cannot make the run folder .* another --output"):
        opened(path)
    with pytest.raises(UsageError, match=r"cannot make the run folder .* another --output"):
        session.preview(path, STUDY)


def test_a_preview_makes_nothing(tmp_path: Path) -> None:
    assert session.preview(tmp_path / "a" / "b", STUDY) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        session.preview(tmp_path / "file", STUDY)
    with pytest.raises((RunFolderError, UsageError), match="another --output"):
        session.preview(tmp_path / "file" / "run", STUDY)


def test_other_errors_are_not_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "x", b"")


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    path = tmp_path / "run"
    opened(path).save_trial(trial(), {})
    (path / "cells" / f"{MARK}abc").write_text("half")
    (path / f"{MARK}abc").write_text("half")
    opened(path)
    assert not [*path.glob(f"{MARK}*"), *path.glob(f"*/{MARK}*")]
    # A crash before study.json was written leaves a folder in which a run may begin.
    early = tmp_path / "early"
    early.mkdir()
    (early / ".leases").mkdir()
    (early / ".leases" / "@folder.1").write_text(f'{{"holder": "{"0" * 32}"}}')
    (early / f"{MARK}abc").write_text("half")
    opened(early)


def test_half_lines_do_not_swallow_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("half")
    append_line(log, "next")
    append_line(log, "last")
    assert log.read_text() == "half\nnext\nlast\n"


def test_a_folder_of_another_build_is_told_apart_from_an_edited_one(tmp_path: Path) -> None:
    """What a study means may change from build to build: then nobody edited it."""
    path = tmp_path / "run"
    opened(path)
    content = json.loads((path / "study.json").read_text())
    content["digest"] = "0" * len(content["digest"])
    content["sha256"] = manifest._sha256(content)
    (path / "study.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="another build of fedaudit"):
        opened(path)


def test_tensors_of_no_hash_are_not_taken_for_removed(tmp_path: Path) -> None:
    folder, key = opened(tmp_path / "run"), trial().cell.key
    folder.save_trial(trial(), {"images": torch.rand(2, 3, 4, 4)})
    record, tensors = folder.files("cells", key)[:2]
    body = json.loads(record.read_text()) | {"sha256": None}
    record.write_text(json.dumps(body | {"record": hash_of_record(body)}))
    tensors.unlink()
    with pytest.raises(RunFolderError, match="its tensors are missing"):
        folder.record("cells", key)
