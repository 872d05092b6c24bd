"""What survives kills at any moment: all that was finished, once, and equal to the undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fedaudit.files.lease import FOLDER as LEASES

AUDIT = Path(__file__).with_name("fault_audit.py")
KILLS = 20
STUDY = """
name = "faults"
data = "orl"
size = 32
utility = false
[federation]
clients = 3
rounds = 1
[[scenario]]
name = "fresh"
targets = 2
attacks = [{name = "inverting_gradients", steps = 60}]
[[scenario]]
name = "trained"
round = 2
targets = 1
attacks = [{name = "inverting_gradients", steps = 60}]
"""


def start(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(AUDIT), "run", "study.toml", "-o", "run", "-q", *args],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(folder: Path, *args: str) -> None:
    run = start(folder, *args)
    _, err = run.communicate(timeout=600)
    assert run.returncode in {0, 3}, err.decode()  # a verdict, whichever


def records(folder: Path) -> dict[str, tuple[int, int]]:
    """The finished jobs, and what changes when one is written again."""
    paths = [*folder.glob("run/cells/*.json"), *folder.glob("run/models/*.json")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def timeless(value: Any) -> Any:
    """Without what is of the moment: times, the command, and hashes of files that hold times."""
    moment = {"seconds", "started", "command", "record", "run folder (SHA256SUMS)", "times"}
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in moment}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, Any]:
    """All results of a run."""
    run = folder / "run"
    results = json.loads((run / "results.json").read_bytes())
    assert results.pop("this_run")["/provenance/seconds"] > 0
    files = [*run.glob("cells/*"), *run.glob("models/*")]
    return {"results.json": results} | {
        str(path.relative_to(run)): timeless(json.loads(path.read_bytes()))
        if path.suffix == ".json"
        else path.read_bytes()
        for path in files
    }


def workers_of(run: subprocess.Popen[bytes]) -> list[int]:
    try:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    except OSError:
        return []
    return [int(pid) for pid in children]


def at_work(folder: Path) -> bool:
    """Whether somebody does a cell."""
    return any("--" in lease.name for lease in folder.glob(f"run/{LEASES}/*"))


def unfinished(folder: Path) -> bool:
    """Whether an attack has kept how far it is."""
    return any(folder.glob("run/unfinished/*.safetensors"))


def harm(folder: Path, draw: random.Random) -> bool:
    """Kill a coordinator or a worker of one or two at a random moment; whether in an attack."""
    executor = ("--executor", "in-process") if draw.random() < 0.3 else ("--workers", "2")
    runs = [start(folder, "--retry-failed", *executor) for _ in range(draw.choice((1, 1, 2)))]
    deadline = time.monotonic() + 300
    while not at_work(folder) and all(run.poll() is None for run in runs):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if draw.random() < 0.6:  # while an attack has a checkpoint; the other moments are all sorts
        while not unfinished(folder) and all(run.poll() is None for run in runs):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
    else:
        time.sleep(draw.uniform(0, 4))
    amid = unfinished(folder)
    victims = [run.pid for run in runs if run.poll() is None]
    if draw.random() < 0.4:
        victims = [worker for run in runs for worker in workers_of(run)] or victims
    if victims:
        victim = draw.choice(victims)
        with suppress(ProcessLookupError):
            if draw.random() < 0.3:
                os.kill(victim, signal.SIGSTOP)  # it stands still before it dies
                time.sleep(0.3)
            os.kill(victim, signal.SIGKILL)
    time.sleep(draw.uniform(0, 1))
    for run in runs:
        if run.poll() is None:
            run.send_signal(draw.choice((signal.SIGKILL, signal.SIGINT)))
        run.communicate(timeout=120)
    return amid


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    calm, harmed = tmp_path / "calm", tmp_path / "harmed"
    for folder in (calm, harmed):
        folder.mkdir()
        (folder / "study.toml").write_text(STUDY)
    finish(calm, "--workers", "2")
    draw, amid = random.Random(20_261_126), 0
    seen: dict[str, tuple[int, int]] = {}
    for _ in range(KILLS):
        amid += harm(harmed, draw)
        now = records(harmed)
        assert now | seen == now, "a finished job was lost, or done again"
        seen = now
        if len(seen) == len(records(calm)):  # finished too early: begin again with some undone
            for name in draw.sample(sorted(seen), len(seen) // 2):
                for kind in ("cells", "models"):
                    for path in (harmed / "run" / kind).glob(f"{Path(name).stem}.*"):
                        path.unlink()
                del seen[name]
            (harmed / "run" / "SHA256SUMS").unlink()
    assert amid > 0
    finish(harmed, "--retry-failed", "--workers", "2")
    assert records(harmed) | seen == records(harmed)
    assert content(harmed) == content(calm)
    for leftover in (LEASES, ".part-*", "*/.part-*", "unfinished/*", "damaged/*", "failed/*"):
        assert not list((harmed / "run").glob(leftover)), leftover
    check = [sys.executable, str(AUDIT), "verify", "run"]
    verified = subprocess.run(check, cwd=harmed, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.slow
def test_two_coordinators_share_the_cells_and_one_is_killed(tmp_path: Path) -> None:
    calm, shared = tmp_path / "calm", tmp_path / "shared"
    for folder in (calm, shared):
        folder.mkdir()
        (folder / "study.toml").write_text(STUDY)
    finish(calm, "--executor", "in-process")
    one, two = (start(shared, "--executor", "in-process") for _ in range(2))
    while not len(records(shared)) > 3:
        time.sleep(0.05)
        assert one.poll() is None
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    _, err = two.communicate(timeout=300)
    assert two.returncode in {0, 3}, err.decode()
    assert content(shared) == content(calm)
