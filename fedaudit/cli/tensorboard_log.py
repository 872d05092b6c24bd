"""`--tensorboard DIR`: a run's numbers for TensorBoard, while it goes on."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from fedaudit.core.errors import FedauditError, UsageError
from fedaudit.core.trial import Trial
from fedaudit.files.atomic import storage_errors
from fedaudit.study.run_folder import CELLS
from fedaudit.study.scheduler import Event
from fedaudit.study.session import Opened

Log = Callable[[Opened, Event], None]


@contextlib.contextmanager
def tensorboard_log(directory: Path | None, run: Path) -> Iterator[Log]:
    """Write scalars as jobs end; what it yields takes the events of any executor.

    `jobs/done`, `jobs/failed` and `jobs/a_minute` by the number of jobs that are over. Of a cell
    its objective and its images' mean of each metric, as METRIC/SCENARIO/DEFENSE/ATTACK/ROLE by
    target and seed: a control is a curve beside the audit's. A run that goes on continues them.

    Args:
        directory: Made where it is missing; None writes nothing.
        run: The run folder, which holds nothing but the run.

    Raises:
        StorageError: The directory cannot be written.
        UsageError: It is in the run folder, or TensorBoard is not installed.
    """
    if directory is None:
        yield lambda opened, event: None
        return
    if directory.resolve().is_relative_to(run.resolve()):
        raise UsageError(
            f"--tensorboard {str(directory)!r} is in the run folder, which holds nothing but the "
            "run. Choose a folder beside it."
        )
    writer = _writer(directory)
    began, ended = time.monotonic(), {"done": 0, "failed": 0}

    def log(opened: Opened, event: Event) -> None:
        if event.outcome is None:
            return
        ended["done" if event.outcome.status == "done" else "failed"] += 1
        over = len(opened.inventory.done) + sum(ended.values())
        minutes = (time.monotonic() - began) / 60
        writer.add_scalar("jobs/done", len(opened.inventory.done) + ended["done"], over)
        writer.add_scalar("jobs/failed", ended["failed"], over)
        writer.add_scalar("jobs/a_minute", ended["done"] / minutes, over)
        if event.outcome.status == "done" and opened.folder.files(CELLS, event.key)[0].exists():
            _add_cell(writer, opened, event.key)
        writer.flush()

    def log_or_say_why(opened: Opened, event: Event) -> None:
        with storage_errors(directory):
            log(opened, event)

    try:
        yield log_or_say_why
    finally:
        with contextlib.suppress(OSError):  # which has been said
            writer.close()


def _add_cell(writer: Any, opened: Opened, key: str) -> None:
    try:
        trial = opened.folder.trial(key)
    except FedauditError:  # the report says what is wrong with it
        return
    cell, seeds = trial.cell, opened.manifest.study.seeds
    line = "/".join((cell.scenario, cell.defense, cell.attack, cell.role))
    step = cell.target * len(seeds) + seeds.index(cell.seed)
    for name, value in _numbers(trial):
        writer.add_scalar(f"{name}/{line}", value, step)


def _numbers(trial: Trial) -> Iterator[tuple[str, float]]:
    """What is known of a cell; an attack in closed form has no objective."""
    if math.isfinite(trial.objective):
        yield "objective", trial.objective
    names = {name: None for image in trial.images for name in image.metrics}
    for name in names:
        yield name, fmean(i.metrics[name] for i in trial.images if name in i.metrics)


def _writer(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs TensorBoard, which is not installed: pip install "
            "'fedaudit[tensorboard]'."
        ) from error
    with storage_errors(directory):
        return SummaryWriter(str(directory))
