import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedaudit.cli import console
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.study.jobs import expand
from fedaudit.study.scheduler import Event
from fedaudit.study.worker import Outcome

JOBS = expand(Study("s", (Scenario("a", targets=5, attacks=(Choice("x"),), controls=False),)))


def happen(show: console.Show) -> None:
    show(Event("started", JOBS[0].key))
    show(Event("retried", JOBS[0].key))
    show(Event("finished", JOBS[0].key, Outcome(JOBS[0].key, "failed", "[red]no[/red] luck")))
    show(Event("waiting"))
    for job in JOBS[1:]:
        show(Event("finished", job.key, Outcome(job.key, "done", seconds=3.0)))


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "EVERY", 0.0)
    with console.progress(JOBS, 2) as show:
        happen(show)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{JOBS[0].key}: its worker process died; it is tried again\n" in captured.err
    assert f"{JOBS[0].key} failed: [red]no[/red] luck\n" in captured.err
    assert "2/5 done, 1 failed, 0 s elapsed, about 4 s left\n" in captured.err
    assert captured.err.endswith("5/5 done, 1 failed, 0 s elapsed\n")


def test_not_every_event_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(JOBS, 2) as show:
        happen(show)
    assert capsys.readouterr().err.count(" done") == 1


def test_a_message_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(JOBS, 2, quiet=True) as show:
        for number, job in enumerate(JOBS):
            message = "no folder" if number else "no luck"
            show(Event("finished", job.key, Outcome(job.key, "failed", message)))
    assert capsys.readouterr().err.splitlines() == [
        f"{JOBS[0].key} failed: no luck",
        f"{JOBS[1].key} failed: no folder",
    ]


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(JOBS, 2, quiet=True) as show:
        happen(show)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with console.progress(JOBS, 2) as show:
        happen(show)
    err = capsys.readouterr().err
    assert "5/5" in err
    assert "[red]no[/red] luck" in err
    assert "\x1b[" in err


def test_no_color(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with console.progress(JOBS, 2) as show:
        happen(show)
    assert "\x1b[" not in capsys.readouterr().err
    assert Path(console.__file__).name == "console.py"


def test_tensorboard_has_progress_and_scores(
    fedaudit: Callable[..., int],
    fakes: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = ("run", "study.toml", "--tensorboard", "log")
    fakes.settings.update({"fail": ["fresh--none--quick--audit--t003"], "objective": 0.25})
    assert fedaudit(*run) == 4
    fakes.settings.pop("fail")
    assert fedaudit(*run, "--retry-failed") == 0
    events = reader.EventAccumulator(str(tmp_path / "log")).Reload()

    def curve(name: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in events.Scalars(name)]

    steps = [(n, float(n)) for n in range(1, fakes.JOBS)]
    last = (fakes.JOBS, float(fakes.JOBS))
    done = curve("jobs/done")
    assert (len(done), done[0], done[-1]) == (fakes.JOBS + 1, steps[0], last)
    assert [value for _, value in curve("jobs/failed")][-2:] == [1.0, 0.0]
    assert all(event.value > 0 for event in events.Scalars("jobs/a_minute"))
    line = "fresh/none/quick/audit"
    assert sorted(curve(f"objective/{line}")) == [(n, 0.25) for n in range(4)]
    for step, value in curve(f"ssim/{line}"):
        (file,) = tmp_path.glob(f"runs/study/cells/{line.replace('/', '--')}--t{step:03d}*.json")
        assert f"{value:.4f}"[:5] in file.read_text()
    assert curve("ssim/fresh/none/quick/prior_only") != curve(f"ssim/{line}")

    capsys.readouterr()
    assert fedaudit("run", "study.toml", "--tensorboard", "runs/study/log") == 2
    assert "Choose a folder beside it." in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert fedaudit("run", "study.toml", "--tensorboard", "file/log") == 4
    assert re.search("cannot write 'file/log'", capsys.readouterr().err)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert fedaudit(*run) == 2
    assert "pip install 'fedaudit[tensorboard]'" in capsys.readouterr().err
