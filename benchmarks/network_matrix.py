"""What becomes of every attack on every network that people use: docs/benchmarks.md.

    python benchmarks/network_matrix.py                       # about 15 CPU minutes
    python benchmarks/network_matrix.py --networks vit swin --attacks gifd --loops gradient

Each cell is one update of a small network, as torchvision and face recognition build them, attacked
with a few steps: not how well it does, but whether it runs. `ran` means images came back; `refused`
that the attack said in one error why it does not; anything else is a crash. The last lines are the
refusals in their own words.
"""

import argparse
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "attacks"))
from client_training import LABELS, LOOPS
from matrix_cases import REFUSALS, SETTINGS, Case, run_case
from stock_networks import NETWORKS


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--attacks", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    said: Counter[tuple[str, str]] = Counter()
    print(f"{'network':16} {'attack':20} {'ran':>4} {'refused':>8} {'crashed':>8} {'CPU s':>6}")
    for network, attack in product(asked.networks, asked.attacks):
        counts: Counter[str] = Counter()
        started = time.process_time()
        for loop, batch in product(asked.loops, LABELS):
            case = Case(attack, network, loop, batch)
            if case.possible:
                outcome, why = _outcome(case)
                counts[outcome] += 1
                said[attack, why] += bool(why)
        seconds = time.process_time() - started
        row = "".join(f"{counts[o]:>{w}}" for o, w in (("ran", 5), ("refused", 9), ("crashed", 9)))
        print(f"{network:16} {attack:20}{row} {seconds:6.1f}", flush=True)
    for (attack, why), count in sorted(said.items()):
        if why:
            print(f"{count:4} × {attack}: {why}")


def _outcome(case: Case) -> tuple[str, str]:
    try:
        run_case(case)
    except REFUSALS as error:
        return "refused", str(error)
    except Exception as error:  # a crash is what this looks for
        return "crashed", f"{case.network}, {case.loop}, {case.batch}: {error!r}"[:300]
    return "ran", ""


if __name__ == "__main__":
    main()
