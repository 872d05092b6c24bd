"""What each attack costs against batch size, image size and model size: a table and a chart.

    python benchmarks/cost_curves.py                      # about 15 minutes on one core
    python benchmarks/cost_curves.py --quick              # two batch sizes, one network
    python benchmarks/cost_curves.py --chart docs/cost_curves.png

Seconds are CPU seconds of one thread for one update with the attack's default settings. Searches
are not run to their end: two short runs give what a step costs and what comes before the first, and
the default number of steps is put in. "passes" is what an iteration costs in forward–backward
passes of the network on the batch (GGL: an iteration is a generation of 50 candidates).
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import altair as alt
import torch

from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.client import ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.registry import create
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of

Settings = Callable[[int], Mapping[str, Any]]
FEW, MANY = 2, 6
CLASSES = 40


@dataclass(frozen=True)
class Line:
    """An attack whose length is set by one number.

    Attributes:
        settings: Steps → settings of the attack.
        steps: What the defaults amount to, in the same number.
        networks: Where it can be used; () for all.
    """

    settings: Settings
    steps: int
    networks: tuple[str, ...] = ()


LINES: Mapping[str, Line] = {
    "inverting_gradients": Line(lambda n: {"steps": n, "polish": 0}, 350),
    "gan_inversion": Line(
        lambda n: {"latent_steps": n, "stage_steps": 2 * n, "pixel_steps": 7 * n}, 21
    ),
    "liu_2021": Line(lambda n: {"steps": n}, 300),
    "gifd": Line(lambda n: {"latent_steps": n, "stage_steps": n}, 80),
    "gias": Line(lambda n: {"latent_steps": 2 * n, "weight_steps": n}, 150),
    "ggl": Line(lambda n: {"generations": n}, 500),
    "gion": Line(lambda n: {"steps": n}, 300),
    "grad_inversion": Line(lambda n: {"steps": n}, 350),
    "dlg": Line(lambda n: {"steps": n, "restarts": 1, "patience": 0}, 80, ("lenet",)),
}
NETWORKS = ("lenet", "face", "resnet18")


def observe(network: str, batch: int, size: int) -> Observation:
    """An update on random images: the cost does not depend on what they show."""
    arguments = (
        {"classes": CLASSES} if network == "lenet" else {"classes": CLASSES, "image_size": size}
    )
    spec = ModelSpec(network, arguments)
    noise = torch.Generator().manual_seed(0)
    task = ClientTask(
        model=spec,
        before=parameters_of(build(spec)),
        kept={},
        images=torch.rand(batch, 1, size, size, generator=noise).expand(-1, 3, -1, -1),
        labels=torch.arange(batch),
        training=LocalTraining(batch_size=batch),
        share="gradient",
        generator=noise,
    )
    shared = train_locally(task).shared
    return Observation(spec, task.before, shared, (3, size, size), batch, CLASSES)


def run(attack: str, settings: Mapping[str, Any], seen: Observation) -> tuple[float, int]:
    """CPU seconds and iterations of one run."""
    started = time.process_time()
    found = create("attacks", attack, settings)(seen, generator=torch.Generator().manual_seed(0))
    return time.process_time() - started, found.iterations


def pass_seconds(seen: Observation, repeats: int) -> float:
    """CPU seconds of one forward–backward pass on the batch."""
    assert seen.batch_size is not None
    assert seen.image_shape is not None
    model = gather(seen).model
    images = torch.rand(seen.batch_size, *seen.image_shape)
    labels = torch.arange(seen.batch_size)
    found = []
    for _ in range(repeats + 2):
        started = time.process_time()
        loss = criterion_of(model)(model(images), labels)
        torch.autograd.grad(loss, list(model.parameters()))
        found.append(time.process_time() - started)
    return median(found[2:])


def measure(attack: str, line: Line, seen: Observation, repeats: int) -> tuple[float, float]:
    """CPU seconds of an iteration, and of one attack with default settings."""
    run(attack, line.settings(1), seen)
    few = [run(attack, line.settings(FEW), seen) for _ in range(repeats)]
    many = [run(attack, line.settings(MANY), seen) for _ in range(repeats)]
    one, two = (median(seconds for seconds, _ in found) for found in (few, many))
    unit = (two - one) / (MANY - FEW)
    iterations = many[0][1] - few[0][1]
    return (two - one) / iterations, max(0.0, one - FEW * unit) + line.steps * unit


def points(quick: bool) -> list[tuple[str, int, int]]:
    """Network, batch size, image size: one axis varies at a time."""
    if quick:
        return [("face", 1, 32), ("face", 4, 32)]
    batches = [("face", batch, 32) for batch in (1, 2, 4, 8, 16)]
    sizes = [("face", 1, size) for size in (64, 112)]
    return [*batches, *sizes, ("lenet", 1, 32), ("resnet18", 1, 32)]


def chart(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds against batch size on the face network, one line an attack."""
    batches = [row for row in rows if row["network"] == "face" and row["size"] == 32]
    drawn = (
        alt.Chart(alt.Data(values=batches))
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "batch:Q",
                title="images in the batch",
                scale=alt.Scale(type="log", base=2),
                axis=alt.Axis(values=sorted({row["batch"] for row in batches}), format="d"),
            ),
            y=alt.Y("seconds:Q", title="CPU seconds an update", scale=alt.Scale(type="log")),
            color=alt.Color("attack:N", title=None),
        )
        .properties(width=460, height=300, title="Cost of an attack, face network, 32 px")
    )
    drawn.save(str(path), scale_factor=2)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chart", type=Path, help="where the chart goes")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print(f"{'network':9} {'size':>4} {'batch':>5} {'attack':20} {'s/attack':>9} {'ms/step':>8} "
          f"{'passes':>7}", flush=True)  # fmt: skip
    for network, batch, size in points(asked.quick):
        seen = observe(network, batch, size)
        one_pass = pass_seconds(seen, 5)
        for attack, line in LINES.items():
            if line.networks and network not in line.networks:
                continue
            step, whole = measure(attack, line, seen, 1 if asked.quick else asked.repeats)
            rows.append(
                {"network": network, "size": size, "batch": batch, "attack": attack,
                 "seconds": whole, "step": step, "passes": step / one_pass}
            )  # fmt: skip
            print(f"{network:9} {size:4} {batch:5} {attack:20} {whole:9.1f} {1e3 * step:8.1f} "
                  f"{step / one_pass:7.1f}", flush=True)  # fmt: skip
    if asked.chart:
        chart(rows, asked.chart)
    if asked.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
