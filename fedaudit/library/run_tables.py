"""Read a run folder in Python: its results, and its rows and trials as tables."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedaudit.core.trial import Trial
from fedaudit.reports.build import results_of
from fedaudit.reports.comparison import Row
from fedaudit.reports.results import Results
from fedaudit.study.session import open_report

Table = list[dict[str, Any]]
"""Flat records with the same keys, as `pandas.DataFrame` takes them."""


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        path: The folder.
        results: All that the report shows, as `results.json` holds it.
        rows: The comparison, scenario × defense × attack; what is nested has names with dots
            (`reid.value`, `ssim.low`), and what was not measured is None.
        trials: One record a reconstructed image, controls (`role`) included; of a cell that could
            not be attacked, one that says why.
        failed: Messages of the jobs that failed, by key.
    """

    path: Path
    results: Results
    rows: Table
    trials: Table
    failed: Mapping[str, str]


def load(run: str | os.PathLike[str]) -> Run:
    """Read a run folder, finished or not; nothing in it is changed.

    Args:
        run: The folder that `fedaudit run`, `demo`, `audit` or `fedaudit.audit` wrote.

    Raises:
        RunFolderError: Not a run folder, of another format, or damaged.

    Example:
        >>> import fedaudit
        >>> run = fedaudit.load("runs/first")  # doctest: +SKIP
        >>> pandas.DataFrame(run.trials).groupby("defense")["ssim"].mean()  # doctest: +SKIP
    """
    path = Path(run)
    folder, _, stock = open_report(path)
    cells = [key for key in stock.done if folder.files("cells", key)[0].exists()]
    results = results_of(path)
    return Run(
        path=path,
        results=results,
        rows=as_table(map(_row, results.rows)),
        trials=as_table(one for key in cells for one in _images(folder.trial(key))),
        failed=dict(stock.failed),
    )


def as_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Records of one kind as flat ones with the same keys.

    >>> as_table([{"n": 1, "reid": {"value": 0.5}}, {"n": 2, "reid": None}])
    [{'n': 1, 'reid.value': 0.5}, {'n': 2, 'reid.value': None}]
    """
    flat = [dict(_leaves(record)) for record in records]
    names = dict.fromkeys(name for record in flat for name in record)
    parents = {name[:k] for name in names for k, sign in enumerate(name) if sign == "."}
    return [{name: one.get(name) for name in names if name not in parents} for one in flat]


def _leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _row(row: Row) -> dict[str, Any]:
    """A line of the comparison, with what was measured beside where."""
    whole = asdict(row)
    measurement = whole.pop("measurement") or {}
    metrics = measurement.pop("metrics", {})
    return {**whole, **measurement, **metrics}


def _images(trial: Trial) -> Iterator[dict[str, Any]]:
    """A record for each image of a trial, with what all of them share."""
    whole = asdict(trial)
    cell, images = whole.pop("cell"), whole.pop("images")
    whole = {name: value for name, value in whole.items() if name not in {"sent", "history"}}
    for number, image in enumerate(images or [{}]):
        metrics = image.pop("metrics", {})
        yield {**cell, "image": number if image else None, **image, **metrics, **whole}
