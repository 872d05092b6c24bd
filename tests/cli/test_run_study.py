"""`fedaudit run`, `report` and `demo` from beginning to end, with work that takes no time."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., int]


def test_run_report_and_go_on(
    fedaudit: Command,
    fakes: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert not (tmp_path / "runs").exists()
    plan = capsys.readouterr().out
    assert "runs/study (new)" in plan
    assert f"jobs      {fakes.JOBS}, of which {fakes.JOBS} are to do" in plan
    assert "fresh: 2 defenses × 1 attack × 4 targets × 1 seed = 8 cells, and 18 controls" in plan
    assert "no estimate before the first cells are done" in plan
    assert "note      dpsgd: the network of fake was changed." in plan
    assert fedaudit("run", "study.toml") == 0
    captured = capsys.readouterr()
    assert captured.out == "LEAK DEMONSTRATED: 3 of 4.\nreport: runs/study/report.html\n"
    assert f"{fakes.JOBS}/{fakes.JOBS} done" in captured.err
    assert (tmp_path / "runs/study/report.html").read_text() == "evidence redacted"
    assert not (tmp_path / "runs/study/evidence").exists()
    fakes.settings["fail"] = ["--"]  # nothing is done again
    assert fedaudit("run", "study.toml") == 0
    assert f"{fakes.JOBS} of {fakes.JOBS} jobs were done before" in capsys.readouterr().err
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert "everything is done" in capsys.readouterr().out
    (tmp_path / "runs/study/cells").rename(tmp_path / "runs/study/hidden")
    (tmp_path / "runs/study/cells").mkdir()
    assert fedaudit("report", "runs/study", "--evidence", "none", "-o", "copy.html") == 0
    captured = capsys.readouterr()
    assert "note: missing, so not tested: fresh--" in captured.err
    assert "copy: copy.html" in captured.out
    assert (tmp_path / "copy.html").read_text() == "evidence none"
    monkeypatch.setattr("fedaudit.reports.pdf.pdf", lambda page: f"%PDF of {page}".encode())
    assert fedaudit("report", "runs/study", "--evidence", "none", "-o", "copy.pdf") == 0
    assert (tmp_path / "copy.pdf").read_text() == "%PDF of evidence none"
    assert not (tmp_path / "runs/study/report.pdf").exists()


def test_a_sequential_run_ends_and_goes_on_where_it_is_decided(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tmp_path / "study.toml").read_text().replace("targets = 4", "targets = 16")
    (tmp_path / "study.toml").write_text(text)

    def attacked(run: str, defense: str) -> int:
        return len(list(tmp_path.glob(f"{run}/cells/fresh--{defense}--*--audit--*.json")))

    assert fedaudit("run", "study.toml", "--sequential", "--dry-run") == 0
    assert "looks     fresh: after 4, 8, 12 and 16 targets" in capsys.readouterr().out
    fakes.settings["decided"] = {"fresh/none": 4, "fresh/dpsgd": 12}
    assert fedaudit("run", "study.toml", "--sequential", "-o", "whole") == 0
    assert (attacked("whole", "none"), attacked("whole", "dpsgd")) == (4, 12)
    assert "fresh, none: stopped after 4 targets: decided" in capsys.readouterr().err
    # Nothing more is done by the same command; and a run that was cut short comes to the same.
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("whole/cells/*")}
    assert fedaudit("run", "study.toml", "--sequential", "-o", "whole") == 0
    after = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("whole/cells/*")}
    assert after == before
    assert fedaudit("run", "study.toml", "--sequential", "-o", "cut", "--budget", "0.01s") == 0
    assert len(list(tmp_path.glob("cut/cells/*.json"))) < len(before) / 2
    assert fedaudit("run", "study.toml", "--sequential", "-o", "cut") == 0
    assert {file.name for file in tmp_path.glob("cut/cells/*")} == before.keys()
    # A folder that was begun one way is not finished the other way: its looks would not count.
    assert fedaudit("run", "study.toml", "-o", "whole") == 4
    assert "sequential is True there and False here" in capsys.readouterr().err


def test_nothing_tested_because_all_failed(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings.update({"fail": ["--"], "headline": "NOT TESTED"})
    assert fedaudit("run", "study.toml") == 4
    out = capsys.readouterr().out
    assert re.match(rf"NOT TESTED: \d+ of {fakes.JOBS} jobs failed, so that there is", out)
    fakes.settings.pop("fail")
    assert fedaudit("report", "runs/study") == 3
    out = capsys.readouterr().out
    assert re.match(rf"NOT TESTED: \d+ of {fakes.JOBS} jobs have no result, so that", out)


def test_after_the_budget_nothing_begins_and_it_is_concluded_from_what_there_is(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings["seconds"] = 0.05
    assert fedaudit("run", "study.toml", "--budget", "0.3s") == 0
    some = len(list(tmp_path.glob("runs/study/*/*.json")))
    assert 0 < some < fakes.JOBS / 2
    assert capsys.readouterr().out.startswith("LEAK DEMONSTRATED")
    fakes.settings["seconds"] = 0
    assert fedaudit("run", "study.toml") == 0
    assert len(list(tmp_path.glob("runs/study/cells/*.json"))) == fakes.JOBS - 10


def test_people_who_may_be_one_are_told_at_the_end(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "person-1 and person-2 look like one person under two names to the judge."
    fakes.settings["limitations"] = ("Something else.", one)
    assert fedaudit("run", "study.toml") == 0
    told = capsys.readouterr().err
    assert f"note: {one} Who they are: fedaudit names runs/study" in told
    assert "Something else" not in told


def test_evidence(fedaudit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("run", "study.toml", "--evidence", "full", "-o", "full") == 0
    assert (tmp_path / "full/report.html").read_text() == "evidence full"
    assert list((tmp_path / "full/evidence").iterdir())
    assert fedaudit("report", "full") == 0
    assert (tmp_path / "full/report.html").read_text() == "evidence redacted"
    assert fedaudit("run", "study.toml", "-o", "full") == 0  # goes on as begun
    assert (tmp_path / "full/report.html").read_text() == "evidence full"
    assert fedaudit("run", "study.toml") == 0
    assert fedaudit("report", "runs/study", "--evidence", "full") == 2
    assert "has no originals to show" in capsys.readouterr().err
    assert fedaudit("run", "study.toml", "--evidence", "none") == 2


def test_demo(fedaudit: Command, fakes: Any, tmp_path: Path) -> None:
    fakes.settings["headline"] = "INCONCLUSIVE"
    assert fedaudit("demo", "--quick") == 0
    for name in ("demo-run-quick", "demo-run-quick-color"):
        assert (tmp_path / name / "report.html").read_text() == "evidence full"
    assert fedaudit("demo", "--seed", "3") == 0
    assert list((tmp_path / "demo-run-seed3/cells").glob("*--s3.json"))
    fakes.settings["fail"] = ["noise"]
    assert fedaudit("demo", "-o", "other") == 4
