"""How fast a capture is recorded and inspected, and how much memory that takes.

    python benchmarks/inspect_capture.py                  # 60 updates of 11 M parameters, 2.7 GB
    python benchmarks/inspect_capture.py --quick          # 10 updates, 0.5 GB
    python benchmarks/inspect_capture.py --updates 1000   # the whole case: 45 GB of disk

ResNet-18 with batch norm (11.2 M parameters), full float32 weights from every client. The capture
is written into a temporary folder, or under --folder, and deleted. Inspection runs in a process of
its own, as the command does it, so that its memory is its own. "once" is what it takes
on a capture without updates: importing all attacks. "cold" asks the system to drop the files from
its cache first (posix_fadvise), so that the disk counts; "warm" reads what is in memory. The time
of 1,000 updates is "once" and 1,000 times the measured time an update: it holds where the disk
keeps up as in "cold".
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

CLIENTS = 20
INSPECT = """
import json, resource, sys, time
from fedaudit.captures.inspection import inspect
from fedaudit.captures.stored import StoredCapture
import torch, tempfile, fedaudit
torch.set_num_threads(1)
once = time.perf_counter()
with tempfile.TemporaryDirectory() as empty:
    fedaudit.recording(empty)
    inspect(StoredCapture(empty))
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
once = time.perf_counter() - once
wall, cpu = time.perf_counter(), time.process_time()
found = inspect(StoredCapture(sys.argv[1]))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
updates = sum(r.updates for r in found.rounds)
assert not found.problems and all(r.norm for r in found.rounds)
print(json.dumps([updates, once, wall, cpu, base / 1e6, peak / 1e6]))
"""


def record(folder: Path, updates: int) -> tuple[float, float]:
    """Write a capture; returns seconds an update and the peak of memory in GB."""
    torch.set_num_threads(1)
    state = build(ModelSpec("resnet18_bn", {"classes": 10})).state_dict()
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
        if number % CLIENTS == 0:
            capture.broadcast(number // CLIENTS, state)
        factor = 1 + number / 100
        sent = {n: v + factor * change[n] if n in change else v + 1 for n, v in state.items()}
        began = time.perf_counter()
        capture.update(number // CLIENTS, number % CLIENTS, sent, kind="weights", examples=32)
        spent += time.perf_counter() - began
    return spent / updates, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def forget(folder: Path) -> None:
    """Ask the system to drop the files from its cache."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


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
        each, peak = record(home / "capture", updates)
        files = list((home / "capture").rglob("*.safetensors"))
        size = sum(p.stat().st_size for p in files) / 1e6
        print(f"{updates} updates, {size:,.0f} MB on disk")
        print(f"recorded: {1e3 * each:.0f} ms an update, peak memory {peak:.2f} GB")
        print(
            "| cache | once s | s an update | MB/s | CPU s an update | peak GB | once GB | 1,000 |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for cache in ("cold", "warm"):
            if cache == "cold":
                forget(home / "capture")
            command = [sys.executable, "-c", INSPECT, str(home / "capture")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            count, once, wall, cpu, base, most = map(float, done.stdout.strip("[]\n ").split(","))
            print(
                f"| {cache} | {once:.1f} | {wall / count:.3f} | {size / wall:,.0f} | "
                f"{cpu / count:.3f} | {most:.2f} | {base:.2f} | {once + 1000 * wall / count:.0f} s |"
            )
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
