"""Runs of the tiny study, once for all tests of this folder."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fedaudit.reports.build import build_report
from fedaudit.reports.results import Results
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.session import failures, open_run, run

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_study import STUDY


def _run(path: Path, *, workers: int, evidence: Any) -> Path:
    with open_run(path, STUDY, command="fedaudit run tiny.toml", evidence=evidence) as opened:
        assert failures(opened, run(opened, executor=LocalProcesses(workers))) == {}
    return path


@pytest.fixture(scope="session")
def redacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one worker, without the originals."""
    return _run(tmp_path_factory.mktemp("one") / "run", workers=1, evidence="redacted")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two workers, with the originals."""
    return _run(tmp_path_factory.mktemp("two") / "run", workers=2, evidence="full")


@pytest.fixture(scope="session")
def results(redacted: Path) -> Results:
    return build_report(redacted, "redacted")


@pytest.fixture
def copied(redacted: Path, tmp_path: Path) -> Path:
    """A run folder to damage."""
    return Path(shutil.copytree(redacted, tmp_path / "copy"))
