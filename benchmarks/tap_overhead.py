"""What the tap costs a Flower run: the example under examples/flower, with it and without.

    python benchmarks/tap_overhead.py                  # three runs of each kind, some minutes
    python benchmarks/tap_overhead.py --repeats 1

Two measurements. *Whole runs*, tapped and untapped in turn, each in a process of its own: medians
of their seconds and of those that `strategy.start` takes, which is the federation itself. They vary
by more than the tap costs (Ray starts anew in each), so their difference says little. *Inside the
tap*: in each tapped run, the seconds that pass in the tap's own code (importing it, making it, each
message that leaves and arrives), by the clock and in CPU seconds of the thread that it runs in.
That is what the tap adds, for it works in the server's thread and nowhere else; it is set against
the seconds of its run. OMP_NUM_THREADS=1, so that torch computes in that thread, too.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "flower"


def timed(function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    """The function, which adds what it takes to `spent`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent["wall"] += time.perf_counter() - wall
            spent["cpu"] += time.thread_time() - cpu
            spent["calls"] += 1

    return call


def one_run(arguments: list[str], told: Path) -> None:
    """Run the example in this process, and write down what was spent where."""
    began = time.perf_counter()
    from faces_app import server_app  # noqa: PLC0415 - what the run imports with or without
    from flwr.serverapp.strategy import FedAvg  # noqa: PLC0415

    inside = {"wall": 0.0, "cpu": 0.0, "calls": 0.0}
    start = {"wall": 0.0, "cpu": 0.0, "calls": 0.0}
    fedaudit = server_app.fedaudit

    def tapped(*args: Any, **kwargs: Any) -> Any:
        from fedaudit.captures.record.flower import Tape, tap  # noqa: PLC0415 - as `fedaudit.tap` does

        made = tap(*args, **kwargs)
        for name in ("_pushed", "asked", "_pulled"):
            setattr(Tape, name, timed(getattr(Tape, name), inside))
        return made

    fedaudit.tap = timed(tapped, inside)
    FedAvg.start = timed(FedAvg.start, start)  # type: ignore[method-assign]
    sys.argv = ["simulate.py", *arguments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLE / "simulate.py"), run_name="__main__")
    found = {"inside": inside, "start": start, "whole": time.perf_counter() - began}
    told.write_text(json.dumps(found))


def run(home: Path, capture: str, options: argparse.Namespace) -> dict[str, Any]:
    """A run in a process of its own."""
    told = home / "told.json"
    command = [sys.executable, __file__, "--one", str(told), "--clients", str(options.clients)]
    command += ["--rounds", str(options.rounds), *(["--capture", capture] if capture else [])]
    paths = os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])  # of Ray's workers
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--capture", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        size = ["--clients", str(options.clients), "--rounds", str(options.rounds)]
        one_run([*([options.capture] if options.capture else []), *size], options.one)
        return
    runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeats):
            for tapped in (False, True):
                capture = str(Path(folder) / f"capture-{number}") if tapped else ""
                runs[tapped].append(run(Path(folder), capture, options))
    print("| | whole run s | strategy.start s | inside the tap s | CPU s |")
    print("|---|---|---|---|---|")
    for tapped, found in runs.items():
        row = [
            [one["whole"] for one in found],
            [one["start"]["wall"] for one in found],
            [one["inside"]["wall"] for one in found],
            [one["inside"]["cpu"] for one in found],
        ]
        shown = (f"{median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in row)
        print(f"| {'tapped' if tapped else 'untapped'} | {' | '.join(shown)} |")
    for name, of in (("whole run", lambda r: r["whole"]), ("strategy.start", _start)):
        shares = [one["inside"]["wall"] / of(one) for one in runs[True]]
        print(f"inside the tap: {median(shares):.2%} of the {name} (at most {max(shares):.2%})")


def _start(found: dict[str, Any]) -> float:
    return float(found["start"]["wall"])


if __name__ == "__main__":
    main()
