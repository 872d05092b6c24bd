from pathlib import Path

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
