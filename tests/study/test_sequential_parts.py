"""Which cells a study that stops where it is decided runs, and when."""

import shutil
from collections.abc import Mapping
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fedaudit.cli import cli
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.reports.archive import summary
from fedaudit.reports.serialization import read_results
from fedaudit.study.jobs import AttackJob, TrainJob, expand
from fedaudit.study.sequential_parts import parts_of, without_lost
from fedaudit.study.session import open_run
from fedaudit.study.worker import Outcome

REAL = """
name = "ends"
size = 32
deployed = "sign"
utility = false
sequential = true
judges = ["dlib"]
[[scenario]]
name = "fresh"
network = "mlp"
targets = 8
attacks = ["analytic"]
defenses = ["none", "sign"]
"""
STUDY = Study(
    "looks",
    (
        Scenario("fresh", targets=16, defenses=(Choice("none"), Choice("dplc"))),
        Scenario("late", targets=6, round=2, attacks=(Choice("gan_inversion"),)),
    ),
    sequential=True,
)


def run_parts(study: Study, path: Path, decided: Mapping[int, set[tuple[str, str]]]) -> list[Any]:
    """The jobs of each part, where so many parts decide these defenses."""
    count = 0

    def now() -> set[tuple[str, str]]:
        return decided.get(count, set())

    found = []
    with open_run(path, study) as opened:
        for part in parts_of(opened, now):
            count += 1
            found.append(part.todo)
    return found


def targets(jobs: Any, scenario: str, defense: str) -> set[int]:
    cells = [job.cell for job in jobs if isinstance(job, AttackJob)]
    return {c.target for c in cells if (c.scenario, c.defense) == (scenario, defense)}


def test_without_decisions_all_is_run_once_look_by_look(tmp_path: Path) -> None:
    parts = run_parts(STUDY, tmp_path / "run", {})
    assert [len(targets(part, "fresh", "none")) for part in parts] == [4, 4, 4, 4]
    assert [len(targets(part, "late", "none")) for part in parts] == [5, 1, 0, 0]
    keys = [job.key for part in parts for job in part]
    assert sorted(keys) == sorted(job.key for job in expand(STUDY))
    assert all(job in parts[0] for job in expand(STUDY) if isinstance(job, TrainJob))


def test_what_is_decided_ends_and_the_rest_goes_on(tmp_path: Path) -> None:
    over = {("fresh", "none"), ("late", "none")}
    parts = run_parts(STUDY, tmp_path / "run", dict.fromkeys(range(1, 9), over))
    assert [len(targets(part, "fresh", "none")) for part in parts] == [4, 0, 0, 0]
    assert [len(targets(part, "fresh", "dplc")) for part in parts] == [4, 4, 4, 4]
    everything = over | {("fresh", "dplc")}
    assert len(run_parts(STUDY, tmp_path / "other", {1: over, 2: everything})) == 2


def test_what_is_decided_no_more_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Another row's p-value has grown, and with it the corrected one of a row that had stopped."""
    over = {("fresh", "none"), ("late", "none")}
    parts = run_parts(STUDY, tmp_path / "run", {1: over, 2: over})
    assert [sorted(targets(part, "fresh", "none")) for part in parts[:4]] == [
        [0, 1, 2, 3],
        [],
        [],
        list(range(4, 16)),
    ]
    assert targets(parts[3], "late", "none") == {5}


def test_other_studies_have_one_part(tmp_path: Path) -> None:
    plain = replace(STUDY, sequential=False)
    (part,) = run_parts(plain, tmp_path / "run", {})
    assert len(part) == len(expand(plain))


def test_cells_of_a_model_that_failed_are_not_tried() -> None:
    jobs = expand(STUDY)
    model = next(job for job in jobs if isinstance(job, TrainJob) and job.rounds == 1)
    opened: Any = make_dataclass("_Part", ["todo"], frozen=True)(jobs)
    rest, skipped = without_lost(opened, [Outcome(model.key, "failed", "no")])
    assert skipped
    assert {o.status for o in skipped} == {"skipped"}
    assert len(rest.todo) + len(skipped) == len(jobs)
    assert not any(model.key in job.needs for job in rest.todo)


@pytest.mark.slow
def test_a_real_study_ends_where_it_is_decided(tmp_path: Path) -> None:
    """The undefended control after the first look; the report lacks nothing, and reads so again."""
    (tmp_path / "study.toml").write_text(REAL)
    words = ["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, [*words, "--executor", "in-process"], standalone_mode=False)
    assert done.exception is None, done.output
    assert "fresh, none: stopped after 4 of 8 targets: decided" in done.stderr
    results = read_results((tmp_path / "run" / "results.json").read_bytes())
    assert [(s.defense, s.targets, s.decided) for s in results.stops] == [
        ("none", 4, True),
        ("sign", 8, False),
    ]
    first = results.rows[0]
    assert first.verdict.kind == "LEAK DEMONSTRATED"
    assert first.verdict.sentence.endswith("Stopped after 4 of 8 targets: decided.")
    assert results.headline.sentence.count("topped after") == 0  # it is on sign
    assert not [line for line in results.limitations if "were not run" in line]
    again = CliRunner().invoke(cli, ["report", str(tmp_path / "run")], standalone_mode=False)
    assert "missing" not in again.stderr
    assert summary(tmp_path / "run").state == "finished"
    for what, says in (("repair", "0 to do"), ("merge", "0 jobs copied, 0 are missing in all")):
        other = [shutil.copytree(tmp_path / "run", tmp_path / "copy")] if what == "merge" else []
        runs = ["runs", what, str(tmp_path / "run"), *map(str, other)]
        done = CliRunner().invoke(cli, runs, standalone_mode=False)
        assert (done.exception, done.return_value) == (None, 0)
        assert says in done.stdout
    next((tmp_path / "run" / "cells").glob("fresh--none--analytic--audit--t001--*.json")).unlink()
    runs = ["runs", "repair", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, runs, standalone_mode=False)
    assert (done.return_value, "0 to do" in done.stdout) == (3, False)  # no longer decided
