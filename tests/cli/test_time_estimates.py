"""What a plan says of the time and memory that a study will take."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fedaudit.study.jobs import AttackJob, Job, TrainJob
from fedaudit.study.measured_costs import Cost

Command = Callable[..., int]


def test_estimate_from_what_is_done(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings["fail"] = ["fresh--dpsgd"]
    assert fedaudit("run", "study.toml", "--quiet") == 4
    err = capsys.readouterr().err
    assert "elapsed" not in err
    assert f"error: 10 of {fakes.JOBS} jobs failed; the report says" in err
    assert "\nfresh--dpsgd--quick--audit--t000--s0: it was told to fail.\nAll messages" in err
    assert "stand in runs/study/failed. --retry-failed tries them again." in err
    assert err.count("told to fail") == 2  # as it happens, and in the end
    assert fedaudit("run", "study.toml", "--dry-run", "--workers", "1") == 0
    plan = capsys.readouterr().out
    assert re.search(r"time      about [01] s: 10 of 10 jobs are like ones that", plan)


def test_a_plan_says_what_such_jobs_took_on_this_machine(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another folder, before any of its cells is done."""
    assert fedaudit("run", "study.toml", "-o", "first") == 0
    capsys.readouterr()
    kinds = json.loads((tmp_path / "costs.json").read_text())
    for kind in kinds:
        kinds[kind] |= {"seconds": 30.0, "memory": 3 * 10**9}
    (tmp_path / "costs.json").write_text(json.dumps(kinds))
    plan = ("run", "study.toml", "-o", "second", "--dry-run", "--workers", "2")
    assert fedaudit(*plan, "--cell-memory", "2G") == 0
    told = capsys.readouterr().out
    minutes, seconds = divmod(30 * fakes.JOBS // 2, 60)
    assert re.search(rf"time      about {minutes} min {seconds} s: (\d+) of \1 jobs", told)
    assert "held up to 3 GB with such jobs here, which is more than --cell-memory allows" in told
    assert "6 GB on all workers" in told
    # Another image size costs another time, which is not known.
    other = (tmp_path / "study.toml").read_text().replace('name = "fake"', 'name = "f"\nsize = 32')
    (tmp_path / "study.toml").write_text(other)
    assert fedaudit(*plan) == 0
    assert "no estimate before the first cells are done" in capsys.readouterr().out
    (tmp_path / "costs.json").write_text("[")
    assert fedaudit(*plan) == 0


def test_trainings_say_nothing_of_what_attacks_take(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_models(_: object, jobs: Iterable[Job], device: str) -> dict[str, Cost]:
        return {job.key: Cost(5.0, 0, 1) for job in jobs if isinstance(job, TrainJob)}

    monkeypatch.setattr("fedaudit.cli.plan.known_costs", of_models)
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert "no estimate before the first cells are done" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_few_cheap_cells_do_not_stand_for_a_study(
    share: float,
    fedaudit: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One defense's cells may cost a tenth of another's in the same group."""
    kinds: list[bool] = []

    def measured(_: object, jobs: Iterable[Job], device: str) -> dict[str, Cost]:
        del device
        jobs = list(jobs)
        kinds.extend(isinstance(job, TrainJob) for job in jobs)
        cells = [job.key for job in jobs if isinstance(job, AttackJob)]
        costs = {key: Cost(1.0, 0, 1) for key in cells[: round(share * len(cells))]}
        return costs | {job.key: Cost(100.0, 0, 1) for job in jobs if isinstance(job, TrainJob)}

    monkeypatch.setattr("fedaudit.cli.plan.known_costs", measured)
    assert fedaudit("run", "study.toml", "--dry-run", "--workers", "1") == 0
    told = capsys.readouterr().out
    if share < 0.5:
        assert "no estimate before the first cells are done" in told
        return
    minutes, seconds = divmod(100 * sum(kinds) + len(kinds) - sum(kinds), 60)
    assert re.search(rf"about {minutes} min {seconds} s: \d+ of {len(kinds)} jobs are like", told)
    assert "the others are taken to cost as much" in told
