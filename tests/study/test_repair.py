"""Run folders that are mended, and joined."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import RunFolderError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.trial import Trial
from fedaudit.files.atomic import MARK
from fedaudit.files.lease import holding
from fedaudit.study import hash_list, session
from fedaudit.study.jobs import AttackJob, expand
from fedaudit.study.repair import Merge, Repair, merge, repair
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.shared_jobs import failures, record_failure

STUDY = Study(
    "s",
    (Scenario("fresh", targets=3, attacks=(Choice("quick"),), controls=False),),
)
CELLS = [job.cell for job in expand(STUDY) if isinstance(job, AttackJob)]


def run_of(path: Path, *targets: int, value: float = 0.0, study: Study = STUDY) -> RunFolder:
    """A run folder in which the cells of some targets are done."""
    with session.open_run(path, study) as opened:
        for target in targets:
            trial = Trial(CELLS[target], (), None, 0.5, 1, 1, float(target), "no")
            opened.folder.save_trial(trial, {"images": torch.full((1, 3, 4, 4), value)})
        session.record_hashes(opened, ())
        return opened.folder


def test_a_harmed_folder_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder = run_of(path, 0, 1)
    keys = [cell.key for cell in CELLS]
    file = folder.files("cells", keys[1])[1]
    file.write_bytes(file.read_bytes()[:-3])
    (path / "cells" / f"{MARK}abc").write_text("half")
    record_failure(path, keys[0], "it failed, and then it did not")
    checkpoint = path / "unfinished" / f"{keys[0]}.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_text("half an attack")
    assert repair(path) == Repair(1, (keys[1],), 2, relisted=False)
    assert not file.exists()
    assert not list(path.glob(f"*/{MARK}*"))
    assert failures(path, keys) == {}
    assert not checkpoint.exists()
    assert hash_list.compare(path, hash_list.read(path)) == hash_list.Differences((), (), ())
    assert repair(path) == Repair(1, (), 2, relisted=False)


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_the_list_of_hashes_is_made_again_of_the_cells(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run"
    run_of(path, 0, 1, 2)
    before = (path / hash_list.FILE).read_text()
    (path / hash_list.FILE).unlink()
    if content:
        (path / hash_list.FILE).write_text(content)
    assert repair(path) == Repair(3, (), 0, relisted=True)
    assert (path / hash_list.FILE).read_text() == before
    assert RunFolder(path).events()[-1]["relisted"] is True


def test_a_repair_launders_no_edit(tmp_path: Path) -> None:
    """A cell whose hash was made to fit differs from the list, and is set aside."""
    path = tmp_path / "run"
    folder = run_of(path, 0)
    folder.files("cells", CELLS[0].key)[0].unlink()
    folder.save_trial(Trial(CELLS[0], (), None, 0.1, 1, 1, 0.0, "no"), {})
    assert repair(path).set_aside == (CELLS[0].key,)


def test_folders_of_one_study_are_joined(tmp_path: Path) -> None:
    run_of(tmp_path / "a", 0)
    run_of(tmp_path / "b", 0, 1)
    run_of(tmp_path / "c", 0, value=1.0)
    into = tmp_path / "a"
    record_failure(into, CELLS[1].key, "here it failed")
    assert merge(into, [tmp_path / "b"]) == Merge(1, (), 1)
    assert RunFolder(into).trial(CELLS[1].key).seconds == 1.0
    assert failures(into, [CELLS[1].key]) == {}
    assert hash_list.compare(into, hash_list.read(into)) == hash_list.Differences((), (), ())
    assert merge(into, [tmp_path / "c"]) == Merge(0, (CELLS[0].key,), 1)
    assert torch.equal(RunFolder(into).tensors(CELLS[0].key)["images"], torch.zeros(1, 3, 4, 4))
    new = tmp_path / "runs" / "all"
    assert merge(new, [tmp_path / "b", tmp_path / "c"]) == Merge(2, (CELLS[0].key,), 1)
    assert new.stat().st_mode & 0o77 == 0
    with pytest.raises(RunFolderError, match="not a run folder"):
        merge(tmp_path / "none", [tmp_path])
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_compared_is_not_joined(tmp_path: Path) -> None:
    into, other = tmp_path / "a", tmp_path / "b"
    run_of(into, 0)
    run_of(other, 1, study=replace(STUDY, size=32))
    with pytest.raises(RunFolderError, match="holds another study: size is 64 there and 32 here"):
        merge(into, [other])
    third = run_of(tmp_path / "c", 1)
    for folder, value in ((RunFolder(into), 0.0), (third, 1.0)):
        folder.save_shared_tensors("gallery", {"x": torch.full((1,), value)})
    with pytest.raises(RunFolderError, match="is another gallery than that of"):
        merge(into, [third.path])
    with holding(into), pytest.raises(RunFolderError, match="another fedaudit run"):
        repair(into)
    assert RunFolder(into).files("cells", CELLS[1].key)[0].exists() is False
