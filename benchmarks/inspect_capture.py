"""How fast a capture is recorded and inspected, and how much memory that takes.

    python benchmarks/inspect_capture.py                  # 60 updates of 11 M parameters, 2.8 GB
    python benchmarks/inspect_capture.py --quick          # 10 updates, 0.5 GB
    python benchmarks/inspect_capture.py --updates 1000   # the whole case: 47 GB of disk

ResNet-18 with batch norm (11.2 M parameters), full float32 weights from every client. The capture
is written into a temporary folder, or under --folder, and deleted. Inspection runs in a process of
its own, as the command does it, so that its memory is its own. "once" is what it takes on a capture
without updates: importing all attacks. "cold" asks the system to drop the files from its cache
first (posix_fadvise), so that the disk counts; "warm" reads what is in memory.

1,000 updates are extrapolated: "once" and 1,000 times the time of an update, by the clock (which
counts what else the computer does) and in CPU seconds (which do not depend on that, nor on the
disk). What inspection keeps of each update does not depend on the size of its tensors, so "many"
inspects 1,000 updates of one round, with as many tensors that have 512 numbers at most: their peak
is what 1,000 large updates leave in memory, to which a large one a thread comes.
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
from fedaudit.models.zoo import build
from fedaudit.types import ModelSpec

INSPECT = """
import json, resource, sys, tempfile, time
import torch, fedaudit
from fedaudit.captures.inspection import inspect
from fedaudit.captures.stored import StoredCapture
torch.set_num_threads(1)
once, once_cpu = time.perf_counter(), time.process_time()
with tempfile.TemporaryDirectory() as empty:
    fedaudit.recording(empty)
    inspect(StoredCapture(empty))
once, once_cpu = time.perf_counter() - once, time.process_time() - once_cpu
wall, cpu = time.perf_counter(), time.process_time()
found = inspect(StoredCapture(sys.argv[1]))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
updates = sum(r.updates for r in found.rounds)
assert not found.problems and all(r.norm for r in found.rounds)
print(json.dumps([updates, once, once_cpu, wall, cpu, peak / 1e6]))
"""


def record(
    folder: Path, updates: int, clients: int = 20, largest: int | None = None
) -> tuple[float, float]:
    """Write a capture; returns seconds an update and the peak of memory in GB.

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
    spent = 0.0
    for number in range(updates):
        if number % clients == 0:
            capture.broadcast(number // clients, state)
        factor = 1 + number / 100
        sent = {n: v + factor * change[n] if n in change else v + 1 for n, v in state.items()}
        began = time.perf_counter()
        capture.update(number // clients, number % clients, sent, kind="weights", examples=32)
        spent += time.perf_counter() - began
    return spent / updates, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def forget(folder: Path) -> None:
    """Ask the system to drop the files from its cache."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def show(cache: str, folder: Path) -> None:
    """Inspect in a process of its own and print a row."""
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    command = [sys.executable, "-c", INSPECT, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    count, once, once_cpu, wall, cpu, peak = map(float, done.stdout.strip("[]\n ").split(","))
    print(
        f"| {cache} | {once:.1f} | {wall / count:.3f} | {size / wall:,.0f} | {cpu / count:.3f} | "
        f"{once + 1000 * wall / count:.0f} s | {once_cpu + 1000 * cpu / count:.0f} s | {peak:.2f} |"
    )


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
        each, peak = record(home / "large", updates)
        print(f"{updates} updates recorded: {1e3 * each:.0f} ms each, peak memory {peak:.2f} GB")
        columns = (
            "cache",
            "once s",
            "s an update",
            "MB/s",
            "CPU s an update",
            "1,000 by the clock",
        )
        print(f"| {' | '.join(columns)} | 1,000 in CPU s | peak GB |")
        print("|---|---|---|---|---|---|---|---|")
        forget(home / "large")
        show("cold", home / "large")
        show("warm", home / "large")
        record(home / "many", 1000, clients=1000, largest=512)
        show("many", home / "many")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
