"""What it takes to record and audit a federation of many clients, and which sample decides.

    python benchmarks/recording_scale.py                       # a minute, 100 MB of scratch
    python benchmarks/recording_scale.py --attack-seconds 600  # of one attacked update

*Recording*, measured: messages of 11 million parameters go through `fedaudit.recording`, kept,
rounded to 16 bits or passed over. CPU seconds, bytes and peak memory are extrapolated to 1,000
clients × 100 rounds and to 10^6 clients (100 rounds in which 1,000 take part). Set against them
are the seconds of what the server does in any case with an update that arrives: it is read off the
wire and added to the average. A federation waits for its clients, too; that is left out. Beside it
what singular vectors of every layer would take, which span all that its images left there.

*Which sample*, simulated: 10^6 clients of whom some leak more than others, and early rounds more
than late ones. Each sample has as many updates; 2,000 draws say how often the interval covers the
true rate of the federation, how often it says of 5 % correctly on which side the rate is, and how
often wrongly.
"""

import argparse
import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

import fedaudit
from fedaudit.stats.intervals import clopper_pearson
from fedaudit.study.worker import peak_memory

PARAMETERS, LAYERS = 11_000_000, 20
CLIENTS, ROUNDS = 1_000_000, 100
LIMIT = 0.05
Leak = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
Sample = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.int64]]]


def message(seed: int) -> dict[str, torch.Tensor]:
    """Tensors of one update."""
    generator = torch.Generator().manual_seed(seed)
    size = PARAMETERS // LAYERS
    return {f"layer{k}.weight": torch.randn(size, generator=generator) for k in range(LAYERS)}


def seconds(task: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    began = time.thread_time()
    task()
    return time.thread_time() - began


def kept_in(
    home: Path, update: dict[str, torch.Tensor], kept: int, precision: Literal["half"] | None
) -> tuple[float, float, int, float]:
    """CPU seconds of a broadcast and of an update, its bytes, MB by which the peak memory grew."""
    folder = home / str(precision)
    record = fedaudit.recording(folder, **({"precision": precision} if precision else {}))
    broadcast = seconds(lambda: record.broadcast(1, update))
    each, size, before = [], 0, reset_peak()
    for client in range(kept):
        update["layer0.weight"] += 1e-3  # another message
        each.append(seconds(lambda c=client: record.update(1, c, update, kind="weights")))
        for file in folder.rglob("update-*"):
            size = file.stat().st_size
            file.unlink()  # the disk of this machine is not what is measured
    return broadcast, float(np.median(each)), size, (peak_memory() - before) / 1e6


def reset_peak() -> int:
    """Have the most memory that was held count from now on, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def recording(kept: int) -> None:
    """Print what messages cost, and what many of them would."""
    update = message(0)
    wire = io.BytesIO()
    np.savez(wire, **{name: value.numpy() for name, value in update.items()})
    total = {name: torch.zeros_like(value) for name, value in update.items()}

    def receive() -> None:
        wire.seek(0)
        with np.load(wire, allow_pickle=False) as arrays:
            for name in arrays.files:
                total[name] += 0.001 * torch.from_numpy(arrays[name])

    server = min(seconds(receive) for _ in range(3))
    print(f"The server reads an update and adds it in {server:.3f} s.")
    with tempfile.TemporaryDirectory() as home:
        measured = {p: kept_in(Path(home), update, kept, p) for p in (None, "half")}
        sparse = fedaudit.recording(Path(home, "sample"), sampled=1e-9)
        passed = seconds(lambda: [sparse.update(1, c, update, kind="delta") for c in range(50)])
    skip, whole = passed / 50, 4 * PARAMETERS
    for precision, (broadcast, write, size, grown) in measured.items():
        print(
            f"a message of {PARAMETERS:,} parameters, precision {precision}: {size / 1e6:.0f} MB; "
            f"kept in {write:.3f} CPU s, passed over in {1000 * skip:.2f} ms, a broadcast kept in "
            f"{broadcast:.2f} s; peak memory grew by {grown:.0f} MB over {kept} messages."
        )
    print(
        "| clients x rounds | recorded | precision | messages | GB | CPU h in the tap | of the "
        "server's |"
    )
    print("|---|---|---|---|---|---|---|")
    shares = ((1000, 1.0), (1000, 0.1), (1000, 0.01), (1000, 0.003), (1_000_000, 0.003))
    for (clients, share), (precision, costs) in itertools.product(shares, measured.items()):
        broadcast, write, size, _ = costs
        sent = 1000 * ROUNDS  # of a million clients, 1,000 take part in a round
        inside = sent * (share * write + (1 - share) * skip) + ROUNDS * broadcast
        size_all = (sent * share * size + ROUNDS * whole) / 1e9
        print(
            f"| {clients:,} x {ROUNDS} | {share:.1%} | {precision} | {round(sent * share):,} | "
            f"{size_all:,.0f} | {inside / 3600:.2f} | {inside / (sent * server):.1%} |"
        )


def factors(pixels: int = 112) -> None:
    """Print what the singular vectors of every layer would take in place of its weights."""
    model = torchvision.models.resnet18(num_classes=1000).eval()
    positions: dict[nn.Module, int] = {}

    def count(layer: nn.Module, _: object, sent: torch.Tensor) -> None:
        positions[layer] = sent[0, 0].numel() if sent.dim() == 4 else 1

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, pixels, pixels))
    for images in (1, 4, 20):
        numbers, spent = 0, 0.0
        for layer, places in positions.items():
            weight = layer.weight.detach().flatten(1)
            height, wide = weight.shape
            rank = images * places
            if rank * (height + wide) < height * wide:
                numbers += rank * (height + wide)
                spent += seconds(lambda w=weight: torch.linalg.eigh(w @ w.T))
            else:
                numbers += height * wide
        print(
            f"ResNet-18 at {pixels} px, {images} image(s): factors of every layer are "
            f"{numbers / sum(p.numel() for p in model.parameters()):.0%} of the numbers, and take "
            f"{spent:.1f} CPU s"
        )


def federation(mean: float) -> Leak:
    """The probability that an update of a client in a round gives its person away.

    Clients differ as a beta distribution of shape 0.5 does; early rounds leak most. Those who have
    the most photos are heard in most rounds, and leak least.
    """
    random = np.random.default_rng(5)
    own = np.sort(random.beta(0.5, 0.5 * (1 - mean) / mean, CLIENTS))[::-1]
    early = np.exp(-np.arange(ROUNDS) / 30)
    early /= early.mean()

    def rate(clients: NDArray[np.int64], rounds: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.clip(own[clients] * early[rounds], 0, 1)

    return rate


SAMPLES: dict[str, Sample] = {
    "uniform over clients and rounds": lambda random, n: (
        random.integers(CLIENTS, size=n), random.integers(ROUNDS, size=n),
    ),
    "uniform over clients, the last round": lambda random, n: (
        random.integers(CLIENTS, size=n), np.full(n, ROUNDS - 1),
    ),
    "the tenth that is easiest to reach": lambda random, n: (
        random.integers(CLIENTS * 9 // 10, CLIENTS, size=n), random.integers(ROUNDS, size=n),
    ),
    "a tenth as many clients, ten rounds of each": lambda random, n: (
        np.repeat(random.integers(CLIENTS, size=n // 10), 10), random.integers(ROUNDS, size=n),
    ),
}  # fmt: skip


def sampling(repeats: int, attack: float) -> None:
    """Print what each sample decides."""
    print(
        "| true rate | sample | updates | covers the rate | right of 5 % | wrong | GB | core h |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for mean in (0.01, 0.02, 0.15):
        rate = federation(mean)
        random = np.random.default_rng(11)
        many = random.integers(CLIENTS, size=400_000), random.integers(ROUNDS, size=400_000)
        true = float(rate(*many).mean())
        for (name, draw), n in ((s, n) for s in SAMPLES.items() for n in (80, 300)):
            ends = [clopper_pearson(hits, n) for hits in range(n + 1)]
            covers = right = wrong = 0
            for _ in range(repeats):
                low, high = ends[int((random.random(n) < rate(*draw(random, n))).sum())]
                covers += low <= true <= high
                right += high <= LIMIT if true <= LIMIT else low > LIMIT
                wrong += high <= LIMIT if true > LIMIT else low > LIMIT
            hours = 2 * n * attack / 3600  # the prior-only control takes as long
            print(
                f"| {true:.1%} | {name} | {n} | {covers / repeats:.1%} | {right / repeats:.1%} | "
                f"{wrong / repeats:.1%} | {n * PARAMETERS * 4 / 1e9:.0f} | {hours:.0f} |",
                flush=True,
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=5, help="that are kept (default: 5)")
    parser.add_argument("--repeats", type=int, default=2000, help="of a sample (default: 2000)")
    parser.add_argument("--attack-seconds", type=float, default=300, help="of an update (300)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recording(options.messages)
    factors()
    sampling(options.repeats, options.attack_seconds)


if __name__ == "__main__":
    main()
