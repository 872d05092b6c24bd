"""`fedaudit why`: a study is explained, goes on, and fails with one clean message."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.errors import DataError, RunFolderError
from fedaudit.reports.build import results_of
from fedaudit.reports.explanation import Explanation
from fedaudit.reports.serialization import adapter, read_results
from fedaudit.scoring.image_metrics import LPIPS
from fedaudit.study.executors.choice import Place
from fedaudit.study.executors.in_process import InProcess
from fedaudit.study.scheduler import execute
from fedaudit.study.study_file import load_study
from fedaudit.study.worker import Outcome
from fedaudit.why.parts import Options, explain

STUDY = """
name = "<b>tiny</b>"
size = 16
utility = false
data = "orl"
[federation]
clients = 2
held_out = 4
[[scenario]]
name = "fresh"
network = "small_cnn"
method = "fedavg"
attacks = [{ name = "inverting_gradients", steps = 2, polish = 0 }]
"""


def at_once(jobs: Sequence[Any], work: Any, _: Any, **settings: Any) -> tuple[Outcome, ...]:
    """`execute` without processes: they would not know what a test replaces."""
    return execute(jobs, work, InProcess(), **settings)


@pytest.fixture
def fedaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command line in a folder with a tiny `study.toml`, without a face embedder."""
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedaudit.why.prepare_subject.judge_of", lambda *_: (None, None))
    monkeypatch.setattr("fedaudit.study.session.execute", at_once)
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))

    def command(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fedaudit", *args])
        return end(cli, args)

    return command


@pytest.mark.slow
def test_a_study_is_explained_twice_alike_and_goes_on(
    fedaudit: Callable[..., int], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--targets", "2", "--rounds", "1,2", "--pairs", "2")
    parts = "rounds,regions,clients"
    assert fedaudit("why", "study.toml", "-o", "one", "--what", parts, *options) == 0
    said = capsys.readouterr()
    assert "page: one/why.html" in said.out
    assert " done, " in said.err
    assert fedaudit("why", "study.toml", "-o", "two", "--what", parts, *options, "-q") == 0
    for name in ("why.json", "why.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "why.html").read_text()
    assert "<img" not in page
    assert "<b>tiny" not in page
    assert not (tmp_path / "one" / "evidence").exists()
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    why = adapter(Explanation).validate_json((tmp_path / "one" / "why.json").read_bytes())
    assert why.artifacts is None
    assert why.clients is not None
    assert len(why.clients.players) == 2
    assert why.regions is not None
    assert why.regions.heat == ()

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", no_more)
    before = (tmp_path / "one" / "why.json").read_bytes()
    assert fedaudit("why", "study.toml", "-o", "one", "--what", parts, *options) == 0
    assert (tmp_path / "one" / "why.json").read_bytes() == before


@pytest.mark.slow  # the executor has a test of two workers, and each part one of its measurement
def test_workers_measure_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    study = load_study(tmp_path / "study.toml")
    options = Options(parts=("rounds",), rounds=(1, 2), targets=2, place=Place(workers=2))
    explain(study, None, tmp_path / "two", options)
    events = (tmp_path / "two" / "log.jsonl").read_text()
    assert '"session"' in events
    assert '"failed"' not in events
    monkeypatch.setattr("fedaudit.study.session.execute", at_once)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        explain(study, None, tmp_path / "one", options)
    finally:
        torch.set_num_threads(threads)
    one, two = ((tmp_path / name / "why.json").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_a_report_of_the_folder_holds_the_explanation(
    fedaudit: Callable[..., int], tmp_path: Path
) -> None:
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert fedaudit("report", "out") in {0, 3}
    results = read_results((tmp_path / "out" / "results.json").read_bytes())
    explanation = adapter(Explanation).validate_json((tmp_path / "out" / "why.json").read_bytes())
    assert results.explanation == explanation
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'id="figure-rounds"' in page
    assert "<b>tiny" not in page
    (tmp_path / "out" / "why.json").write_text("{")
    with pytest.raises(RunFolderError, match="fedaudit why"):
        results_of(tmp_path / "out")


def test_a_failure_is_not_a_part_that_was_not_tested(
    fedaudit: Callable[..., int], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DataError("no such photo")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", refuse)
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2")
    assert fedaudit("why", "study.toml", "-o", "refused", *options) == 0
    assert "rounds: not tested: no such photo" in capsys.readouterr().err

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", fail)
    assert fedaudit("why", "study.toml", "-o", "failed", *options) == 4
    assert "a bug" in capsys.readouterr().err


def test_a_folder_holds_one_study(
    fedaudit: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    (tmp_path / "study.toml").write_text(STUDY.replace("clients = 2", "clients = 3"))
    assert fedaudit("why", "study.toml", "-o", "out", *options) != 0
    assert "holds another study" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert fedaudit("why", "study.toml", "-o", "full", *options) != 0
    assert "thesis.tex" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--what", "layer"), "'layer' is none of layers, rounds"),
        (("--rounds", "0,2"), "counted from 1"),
        (("--rounds", "two"), "no list of rounds"),
        (("--scenario", "frsh"), "did you mean 'fresh'"),
        (("--targets", "1"), "2<=x<=999"),
    ],
)
def test_bad_input_is_explained(
    args: tuple[str, ...], message: str, fedaudit: Callable[..., int], capsys: Any
) -> None:
    assert fedaudit("why", "study.toml", "-o", "out", *args) == 2
    assert message in capsys.readouterr().err


def test_the_example_is_a_study() -> None:
    study = load_study(Path(__file__).parents[2] / "examples" / "why.toml")
    assert [s.round for s in study.scenarios] == [1, 10]


def test_full_evidence_keeps_and_shows_faces(fedaudit: Callable[..., int], tmp_path: Path) -> None:
    options = ("--what", "regions", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert fedaudit("why", "study.toml", "-o", "out", *options, "--evidence", "full") == 0
    page = (tmp_path / "out" / "why.html").read_text()
    assert page.count("<img") == 4  # two targets, original and reconstruction, no heat
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert "<img" not in (tmp_path / "out" / "why.html").read_text()
