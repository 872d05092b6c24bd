"""How fast a capture is recorded and inspected, and how much memory that takes.

    python benchmarks/inspect_capture.py --updates 1000   # 1,000 updates of 11 M parameters, 47 GB
    python benchmarks/inspect_capture.py                  # 60 updates, 2.8 GB
    python benchmarks/inspect_capture.py --quick          # 10 updates, 0.5 GB

ResNet-18 with batch norm (11.2 M parameters), full float32 weights from every client. The capture
is written into a temporary folder, or under --folder, and deleted. It is inspected by the command,
`fedaudit inspect`: seconds, CPU seconds and the peak of memory are those of a whole process, its
start included, which is what "no updates" takes. "cold" asks the system to drop the files from its
cache first (posix_fadvise), so that the disk counts; "warm" reads what is in memory. Linux only.

Inspection reads headers, where the measures of each update stand since it was recorded; with
--verify it reads all tensors, too, as it must of a capture without such measures. Fewer than 1,000
updates are extrapolated: the start, and 1,000 times what an update takes.

What inspection keeps of each update does not depend on the size of its tensors, so "1,000 small"
inspects 1,000 updates of one round, with as many tensors that have 512 numbers at most: their peak
is what 1,000 large updates leave in memory.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import fedaudit
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

COMMAND = """
import atexit, sys
from fedaudit.cli import main
# ru_maxrss would count the process that started this one.
atexit.register(lambda: print(open("/proc/self/status").read(), file=sys.stderr))
main()
"""


def record(
    folder: Path, updates: int, clients: int = 20, largest: int | None = None
) -> tuple[float, float, float]:
    """Write a capture; returns seconds and CPU seconds an update, and the peak of memory in GB.

    Args:
        folder: Where to.
        updates: How many.
        clients: In a round.
        largest: Numbers of a tensor at most; None is all.
    """
    torch.set_num_threads(1)
    state = build(ModelSpec("resnet18_bn", {"classes": 10})).state_dict()
    if largest is not None:
        state = {n: v.flatten()[:largest].clone() if v.dim() else v for n, v in state.items()}
    generator = torch.Generator().manual_seed(0)
    # One drawn change, scaled anew for each client: drawing costs more than what is measured.
    change = {
        n: 1e-3 * torch.randn(v.shape, generator=generator)
        for n, v in state.items()
        if v.is_floating_point()
    }
    capture = fedaudit.recording(folder, model="resnet18_bn", classes=10, lr=0.1)
    wall = cpu = 0.0
    for number in range(updates):
        if number % clients == 0:
            capture.broadcast(number // clients, state)
        factor = 1 + number / 100
        sent = {n: v + factor * change[n] if n in change else v + 1 for n, v in state.items()}
        began, spent = time.perf_counter(), time.process_time()
        capture.update(number // clients, number % clients, sent, kind="weights", examples=32)
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return wall / max(1, updates), cpu / max(1, updates), peak


def forget(folder: Path) -> None:
    """Ask the system to drop the files from its cache."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def inspected(folder: Path, *arguments: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the peak of memory in GB of the command."""
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", COMMAND, "inspect", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (peak,) = (line.split()[1] for line in done.stderr.splitlines() if line.startswith("VmHWM"))
    return wall, cpu, int(peak) / 1e6


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="10 updates")
    parser.add_argument("--folder", type=Path, help="Where there is room.  [default: temporary]")
    options = parser.parse_args()
    updates = 10 if options.quick else options.updates
    home = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        record(home / "none", 0)
        none = inspected(home / "none")
        each, cpu, peak = record(home / "large", updates)
        print(
            f"{updates} updates recorded: {1e3 * each:.0f} ms and {1e3 * cpu:.0f} CPU ms each, "
            f"peak memory {peak:.2f} GB"
        )
        print("| | updates | s | CPU s | 1,000 updates: s | CPU s | peak GB |")
        print("|---|---|---|---|---|---|---|")
        show("no updates", 0, none, none)
        forget(home / "large")
        show("cold", updates, inspected(home / "large"), none)
        show("warm", updates, inspected(home / "large"), none)
        forget(home / "large")
        show("cold, --verify", updates, inspected(home / "large", "--verify"), none)
        record(home / "small", 1000, clients=1000, largest=512)
        show("1,000 small", 1000, inspected(home / "small"), none)
    finally:
        shutil.rmtree(home)


def show(
    name: str, updates: int, taken: tuple[float, float, float], none: tuple[float, float, float]
) -> None:
    """Print a row; `none` is what it takes to inspect no update."""
    whole = [
        f"{none[k] + 1000 * max(0.0, taken[k] - none[k]) / updates:.1f}" if updates else "—"
        for k in (0, 1)
    ]
    row = [name, f"{updates:,}", f"{taken[0]:.1f}", f"{taken[1]:.1f}", *whole, f"{taken[2]:.2f}"]
    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
