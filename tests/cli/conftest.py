"""The command line in this process, with plugins and work that take no time."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedaudit.captures.simulate.simulated_source import SimulatedSource
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core import registry
from fedaudit.study import measured_costs, session
from fedaudit.study.executors.in_process import InProcess
from fedaudit.study.scheduler import execute
from fedaudit.study.worker import Outcome

Command = Callable[..., int]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The stand-ins of `tests/study/fake_audit.py`, in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "study"))
    fake_audit = importlib.import_module("fake_audit")
    monkeypatch.setattr(fake_audit, "settings", {})
    monkeypatch.setattr(registry, "lookup", fake_audit.lookup)
    run_study = importlib.import_module("fedaudit.cli.run_study")  # with the real `decided`
    for name, module in fake_audit.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(parent), child, module, raising=False)
    verdict = importlib.import_module("fedaudit.cli.conclusion")
    monkeypatch.setattr(verdict, "build", sys.modules["fedaudit.reports.build"])
    monkeypatch.setattr(
        run_study, "decided", sys.modules["fedaudit.reports.interim_analysis"].decided
    )
    monkeypatch.setattr(session, "execute", serially)
    monkeypatch.setattr(measured_costs, "costs_file", lambda: tmp_path / "costs.json")
    monkeypatch.setattr(SimulatedSource, "notes", lambda one: fake_audit.notes_of(one.study))
    return fake_audit


def serially(jobs: Sequence[Any], work: Any, _: Any, **settings: Any) -> tuple[Outcome, ...]:
    """`execute` without processes: they would not know what a test replaces."""
    return execute(jobs, work, InProcess(), **settings)


@pytest.fixture
def fedaudit(fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in a folder with `study.toml`, and return its exit code."""
    (tmp_path / "study.toml").write_text(fakes.STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDAUDIT_DEBUG", raising=False)

    def command(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fedaudit", *args])
        return end(cli, args)

    return command
