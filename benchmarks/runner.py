"""What the runner costs: overhead of its processes, what two give, and folders of many cells.

    python benchmarks/runner.py overhead           # 60 jobs of one second, one worker: 2 minutes
    python benchmarks/runner.py workers            # 60 jobs of one second by one and two: 2 minutes
    python benchmarks/runner.py cells --cells 10000 --folder /tmp/many    # a minute

*overhead* sets the time of the jobs against that of a bare loop over the same jobs. The jobs wait
instead of computing (`--busy` computes), so that other work on the machine counts little; a job's
seconds are from when all workers are at work. Every job leaves a record and a lease as a cell does.
*cells* fills a folder with invented cells, once, and measures CPU seconds of opening
and summarizing it, and of rendering the page; beside a tenth of the cells for the memory a cell
takes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.trial import ImageScore, Trial
from fedaudit.files.lease import holding
from fedaudit.reports import build
from fedaudit.reports.html import render
from fedaudit.study import session
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.jobs import AttackJob, expand
from fedaudit.study.run_folder import MEASUREMENTS, RunFolder
from fedaudit.study.scheduler import Event, execute
from fedaudit.study.shared_jobs import SharedJobs
from fedaudit.study.worker import peak_memory


@dataclass(frozen=True)
class Job:
    """Takes a second."""

    key: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """Waits, or computes, for a second of the clock, and leaves a record."""

    folder: RunFolder
    busy: bool

    def __call__(self, job: Job) -> None:
        """Do it."""
        end = time.monotonic() + 1
        while self.busy and time.monotonic() < end:
            torch.ones(64, 64) @ torch.ones(64, 64)
        time.sleep(max(0.0, end - time.monotonic()))
        self.folder.save_measurement(job.key, {"x": 1})


def seconds_of(count: int, workers: int, *, busy: bool) -> float:
    """Seconds a job, from when all workers are at work."""
    running = done = 0
    at_work: list[tuple[float, int]] = []
    ended: list[float] = []

    def note(event: Event) -> None:
        nonlocal running, done
        running += (event.kind == "started") - (event.kind == "finished")
        done += event.kind == "finished"
        if running == workers and not at_work:
            at_work.append((time.monotonic(), done))
        if done == count and not ended:
            ended.append(time.monotonic())

    jobs = [Job(f"j{i}") for i in range(count)]
    with tempfile.TemporaryDirectory() as name, holding(Path(name)) as leases:
        shared = SharedJobs(Path(name), leases, {job.key: MEASUREMENTS for job in jobs})
        work = Work(RunFolder(Path(name)), busy)
        execute(jobs, work, LocalProcesses(workers), shared=shared, on_event=note)
    began, before = at_work[0]
    return (ended[0] - began) / (count - before)


def bare(count: int, *, busy: bool) -> float:
    """Seconds a job of a loop in this process."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Work(RunFolder(Path(name)), busy)
        for number in range(count):
            work(Job(f"j{number}"))
    return (time.monotonic() - began) / count


def overhead(count: int, *, busy: bool) -> None:
    """Print what the runner adds to a loop."""
    loop = bare(count, busy=busy)
    run = seconds_of(count, 1, busy=busy)
    print(f"a job: bare loop {loop:.3f} s, runner {run:.3f} s, overhead {run / loop - 1:.2%}")


def workers(count: int, *, busy: bool) -> None:
    """Print what two workers give."""
    one, two = (seconds_of(count, n, busy=busy) for n in (1, 2))
    print(f"a job: one worker {one:.3f} s, two {two:.3f} s, {one / two:.2f} times as fast")


ATTACKS = ("idlg", "dlg", "inverting_gradients", "gan_inversion")


def study_of(cells: int) -> Study:
    """Four attacks and five defenses with as many targets as give so many cells."""
    noises = [Choice("gaussian_noise", {"std": 0.1 * i}, f"noise-{i}") for i in range(1, 5)]
    scenario = Scenario(
        "fresh",
        network=Choice("mlp"),
        targets=cells // 40,
        attacks=tuple(map(Choice, ATTACKS)),
        defenses=(Choice("none"), *noises),
    )
    return Study("many", (scenario,), utility=False, data=Choice("orl"), size=32)


def fill(path: Path, cells: int) -> None:
    """A finished run of invented cells."""
    fsync, os.fsync = os.fsync, lambda _: None
    try:
        with session.open_run(path, study_of(cells)) as opened:
            for number, job in enumerate(opened.todo):
                assert isinstance(job, AttackJob)
                metrics = {"ssim": number % 7 / 10, "psnr": 10.0 + number % 9, "lpips": 0.5}
                person = f"s{job.cell.target}"
                score = ImageScore(person, metrics, 0.1, number % 3 == 0, 1 + number % 5)
                trial = Trial(job.cell, (score,), 1.0, 0.5, 30, 30, 1.5, "known", (), ((1, 0.5),))
                opened.folder.save_trial(trial, {"images": torch.zeros(1, 3, 32, 32)})
            session.record_hashes(opened, ())
    finally:
        os.fsync = fsync


def cells_of(path: Path, cells: int) -> None:
    """Print what it takes to read a run of so many cells."""
    if not path.exists():
        fill(path, cells)
    torch.set_num_threads(1)
    before = peak_memory()
    began = time.process_time()
    results = build.results_of(path)
    read = time.process_time()
    render(results, None, "redacted", "")
    rendered = time.process_time()
    grown = peak_memory() - before
    print(
        f"{len(expand(study_of(cells)))} cells: opened and summarized in {read - began:.1f} s of "
        f"CPU, rendered in {rendered - read:.1f} s, {grown / 1e6:.0f} MB more memory"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["overhead", "workers", "cells", "read"])
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=Path("many-cells"))
    asked = parser.parse_args(words)
    if asked.what == "overhead":
        overhead(asked.jobs, busy=asked.busy)
    elif asked.what == "workers":
        workers(asked.jobs, busy=asked.busy)
    elif asked.what == "read":
        cells_of(asked.folder, asked.cells)
    else:
        for cells in (asked.cells // 10, asked.cells):  # each in a process of its own, for memory
            folder = asked.folder.with_name(f"{asked.folder.name}-{cells}")
            settings = ["--cells", str(cells), "--folder", str(folder)]
            if not folder.exists():
                fill(folder, cells)
            subprocess.run([sys.executable, __file__, "read", *settings], check=True)


if __name__ == "__main__":
    main()
