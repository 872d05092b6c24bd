import importlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedaudit.core.errors import FedauditError, StorageError
from fedaudit.study.executors import local_processes
from fedaudit.study.executors.choice import Place
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.executors.pool import Resources, default_workers
from fedaudit.study.scheduler import Event, execute

MUCH = 700_000_000
"""Bytes: more than a worker takes that does next to nothing."""


@pytest.fixture
def chores(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("chores")


@pytest.mark.slow
def test_two_workers_do_what_one_does(
    chores: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [chores.Chore(f"c{i}") for i in range(4)]
    held = bytearray(b"x") * MUCH
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        outcomes = execute(jobs, chores.Do(folder), LocalProcesses(workers))
        assert [(o.key, o.status) for o in outcomes] == [(job.key, "done") for job in jobs]
        assert all(0 < o.memory < MUCH for o in outcomes)  # theirs, and not this process's
    del held
    for job in jobs:
        one, two = ((tmp_path / n / job.key).read_bytes() for n in "12")
        assert one == two
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_stopped_worker_is_killed_and_its_job_done_again(
    chores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.study.executors.local_processes.SILENCE", 6.0)
    jobs = [chores.Chore("frozen once", "stop once"), chores.Chore("frozen", "stop")]
    events: list[Event] = []
    outcomes = execute(jobs, chores.Do(tmp_path), LocalProcesses(2), on_event=events.append)
    assert [outcome.status for outcome in outcomes] == ["done", "failed"]
    assert "gave no sign for 6 s, and was killed" in outcomes[1].message
    assert [event.key for event in events if event.kind == "retried"].count("frozen") == 1
    assert (tmp_path / "frozen.attempts").read_text() == "xx"


@pytest.mark.slow
def test_an_endless_job_ends_at_the_limit_and_the_others_are_done(
    chores: Any, tmp_path: Path
) -> None:
    jobs = [chores.Chore("endless", "loop"), chores.Chore("a"), chores.Chore("b")]
    endless, *others = execute(jobs, chores.Do(tmp_path), LocalProcesses(1, limit=2.0))
    assert endless.status == "failed"
    assert "longer than 2 s, the limit" in endless.message
    assert "--cell-timeout" in endless.message
    assert [outcome.status for outcome in others] == ["done", "done"]
    assert (tmp_path / "endless.attempts").read_text() == "x"


@pytest.mark.slow
def test_a_job_beyond_its_memory_has_failed_and_the_others_are_done(
    chores: Any, tmp_path: Path
) -> None:
    jobs = [chores.Chore("hoard", "hoard"), chores.Chore("modest")]
    needs = Resources(memory=1_200_000_000)
    hoard, modest = execute(jobs, chores.Do(tmp_path), LocalProcesses(1, needs))
    assert hoard.status == "failed"
    assert "it took more memory than 1.2 GB, the limit" in hoard.message
    assert "--cell-memory" in hoard.message
    assert (tmp_path / "hoard.attempts").read_text() == "x"  # it would be so again
    assert modest.status == "done"
    assert 0 < modest.memory < 1_200_000_000


@pytest.mark.slow
def test_a_worker_without_a_job_prepares_for_later_ones(chores: Any, tmp_path: Path) -> None:
    jobs = [chores.Chore("first", "await"), chores.Chore("second", needs=("first",))]
    outcomes = execute(jobs, chores.DoPrepared(tmp_path), LocalProcesses(2, limit=120.0))
    assert [outcome.status for outcome in outcomes] == ["done", "done"]


@pytest.mark.parametrize(
    ("device", "cards", "share", "workers"),
    [("cuda", 2, 0.25, 8), ("cuda:1", 2, 0.5, 2), ("cuda", 1, 1.0, 1), ("cpu", 0, 0.0, 3)],
)
def test_jobs_share_cards(
    monkeypatch: pytest.MonkeyPatch, device: str, cards: int, share: float, workers: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    monkeypatch.setattr("fedaudit.study.executors.choice.default_workers", lambda: 3)
    made = Place(device=device, resources=Resources(gpu=share)).make()
    assert made.slots == workers
    assert isinstance(made, LocalProcesses)
    assert made.cards == (cards if device == "cuda" else 1)


def test_workers_are_spread_over_the_cards() -> None:
    pool = local_processes._Processes(print, LocalProcesses(4, cards=2))
    seen = []
    for _ in range(4):
        card = pool._next_card()
        seen.append(card)
        pool._workers.append(local_processes._Worker(None, None, card=card))  # type: ignore[arg-type]
    assert seen == [0, 1, 0, 1]


def test_failures_stay_with_their_job(chores: Any, tmp_path: Path) -> None:
    jobs = [
        chores.Chore("good", needs=("done long ago",)),
        chores.Chore("bad", "fail"),
        chores.Chore("needs bad", needs=("bad",)),
        chores.Chore("needs that", needs=("needs bad",)),
        chores.Chore("needs good", needs=("good",)),
        chores.Chore("ugly", "crash"),
        chores.Chore("deadly", "die"),
        chores.Chore("mortal", "die once"),
    ]
    events: list[Event] = []
    outcomes = execute(jobs, chores.Do(tmp_path), LocalProcesses(2), on_event=events.append)
    by_key = {o.key: o for o in outcomes}
    assert {key: o.status for key, o in by_key.items()} == {
        "good": "done",
        "bad": "failed",
        "needs bad": "skipped",
        "needs that": "skipped",
        "needs good": "done",
        "ugly": "failed",
        "deadly": "failed",
        "mortal": "done",
    }
    assert by_key["bad"].message == "it did not converge"
    assert by_key["ugly"].message == "ZeroDivisionError: by zero"
    assert "died 2 times (exit code -9, probably out of memory)" in by_key["deadly"].message
    assert not (tmp_path / "needs bad").exists()
    finished = [e.key for e in events if e.kind == "finished"]
    assert sorted(finished) == sorted(by_key)
    assert finished.index("good") < finished.index("needs good")
    assert {e.key for e in events if e.kind == "retried"} == {"deadly", "mortal"}


def test_a_full_disk_ends_it(chores: Any, tmp_path: Path) -> None:
    jobs = [chores.Chore("good"), chores.Chore("full", "full"), chores.Chore("later")]
    with pytest.raises(StorageError, match="disk is full"):
        execute(jobs, chores.Do(tmp_path), LocalProcesses(1))
    assert (tmp_path / "good").exists()
    assert not (tmp_path / "later").exists()


def test_an_interrupt_ends_it_soon_and_leaves_no_process(chores: Any, tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt() -> None:
        while not (tmp_path / "c0.attempts").exists():
            time.sleep(0.05)
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        pids.extend(int(pid) for pid in children.read_text().split())
        os.kill(os.getpid(), signal.SIGINT)
        started.append(time.monotonic())

    started: list[float] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        execute(
            [chores.Chore("c0", "sleep"), chores.Chore("c1")],
            chores.Do(tmp_path),
            LocalProcesses(1),
        )
    thread.join()
    assert time.monotonic() - started[0] < 3
    assert pids
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline")
        assert not command.exists() or b"spawn_main" not in command.read_bytes()


def test_workers_that_cannot_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "vanishing.py"
    helper.write_text("def work(job): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    vanishing = importlib.import_module("vanishing")
    helper.write_text("raise ImportError('gone')\n")

    class Job:
        key, needs = "x", ()

    with pytest.raises(FedauditError, match="cannot start"):
        execute([Job()], vanishing.work, LocalProcesses(1))
    assert "gone" in capfd.readouterr().err


def test_nothing_to_do() -> None:
    assert execute([], print, LocalProcesses()) == ()
    assert default_workers() >= 1


def test_an_interrupt_waits_until_a_worker_is_born() -> None:
    """Another thread may take the signal that the main one has blocked."""
    idle, reached = threading.Event(), []
    thread = threading.Thread(target=idle.wait, args=(60,))
    thread.start()

    def start() -> None:
        with local_processes._interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            reached.append("the end of the start")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        idle.set()
        thread.join()
    assert reached == ["the end of the start"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
