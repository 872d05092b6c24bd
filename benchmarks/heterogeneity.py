"""How leakage moves with the clients' differences, and what they do to accuracy.

    python benchmarks/heterogeneity.py                    # about eight CPU minutes
    python benchmarks/heterogeneity.py --quick            # one network and target, about two
    python benchmarks/heterogeneity.py --chart docs/heterogeneity.png
    python benchmarks/heterogeneity.py --faces faces.png  # what "lighting" and "pose" order

ORL at 32 px, network `face`, FedAvg; ten people held out. From the first line on, one thing varies
at a time: 30 people at five clients, five photos of each. After eight rounds, a client trains one
local step on four of its photos, of four people if it has as many, and its update is inverted.
`label` is the mean total variation distance between two clients' people, `light` and `pose` the
share of a photo's difference from others of its person that lies between clients: each in [0, 1],
0 where clients are alike. `repeats` are photos of a batch whose person another photo of it shows.
Accuracy is balanced, over all pairs of held-out photos: the mean of five networks, whose range, not
an interval, stands beside it; the first two of them are attacked. The gallery is the same in all
lines: five photos of everybody, none of which trains. Intervals (95 %) are exact for rates, over
photos, and bootstrapped by person for SSIM; `prior only` is the first line with each update
replaced by noise.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import altair as alt
import torch
from PIL import Image
from scoring import Judge

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.data.face_set import FaceSet
from fedaudit.data.lighting_pose import lighting, pose
from fedaudit.data.orl import orl
from fedaudit.data.skew import feature_skew, label_skew
from fedaudit.data.splits import split
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import measure
from fedaudit.stats import intervals

ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "map_inversion": {
        "candidates": 32, "descent_steps": 120, "solve_steps": 0, "search_steps": 100
    },
    "gan_inversion": {
        "candidates": 64, "latent_steps": 10, "stage_steps": 20, "pixel_steps": 70
    },
}  # fmt: skip
"""Quick settings."""
CONTROL = "prior only"


@dataclass(frozen=True)
class Setting:
    """One line: what differs from the first."""

    group: str
    name: str
    changes: Mapping[str, Any]


SETTINGS = (
    Setting("identities", "6 a client", {}),
    Setting("identities", "3 a client", {"clients": 10}),
    Setting("identities", "1 a client", {"clients": 30}),
    Setting("photos", "3 a person", {"photos": 3}),
    Setting("photos", "1 a person", {"photos": 1}),
    Setting("dirichlet", "α = 0.1", {"partition": "dirichlet", "alpha": 0.1}),
    Setting("dirichlet", "α = 1", {"partition": "dirichlet", "alpha": 1.0}),
    Setting("dirichlet", "α = 100", {"partition": "dirichlet", "alpha": 100.0}),
    Setting("features", "lighting", {"partition": "lighting"}),
    Setting("features", "pose", {"partition": "pose"}),
)


@dataclass(frozen=True)
class Asked:
    """How much is run."""

    rounds: int
    seeds: int
    networks: int
    targets: int
    batch: int
    attack: str


def federation(setting: Setting, asked: Asked) -> Federation:
    """The setting's federation."""
    return with_keys(
        Federation(clients=5, rounds=asked.rounds), {"lr": 0.05} | dict(setting.changes)
    )


def attacked(
    simulation: Simulation, state: State, asked: Asked, judge: Judge, *, control: bool
) -> tuple[list[ImageScore], int]:
    """Scores of all targets, and how many photos show a person whom their batch shows again."""
    attack: Attack = create("attacks", asked.attack, ATTACKS[asked.attack])
    scores: list[ImageScore] = []
    repeats = 0
    for target in range(asked.targets):
        capture = simulate(
            simulation,
            state,
            # Other targets for every seed, so that each shows people that none did before.
            target=simulation.seed * asked.targets + target,
            batch_size=asked.batch,
            training=LocalTraining(0.1, 1, asked.batch),
            threat=threat_model("D"),
            round=asked.rounds + 1,
            seed=simulation.seed,
        )
        assert capture.secret is not None
        seen = capture.seen
        if control:
            seen = without_update(seen, generator_for("prior", simulation.seed, target))
        found = attack(seen, generator=generator_for("attack", simulation.seed, target))
        scores += judge.score(capture, found)
        repeats += asked.batch - len(set(capture.secret.people))
    return scores, repeats


def line(
    setting: Setting, asked: Asked, faces: FaceSet, judge: Judge, *, control: bool = False
) -> dict[str, Any]:
    """One row: all seeds of a setting."""
    started = time.process_time()
    settings = federation(setting, asked)
    parts = split(faces, settings)
    scores: list[ImageScore] = []
    accuracy, repeats = [], 0
    for seed in range(max(asked.seeds, asked.networks)):
        simulation = Simulation(
            network=ModelSpec("face"),
            faces=faces,
            split=parts,
            federation=settings,
            method=create("methods", "fedavg", {}),
            defense=create("defenses", "none", {}),
            seed=seed,
        )
        state, seconds = simulation.train(simulation.fresh(), range(1, asked.rounds + 1))
        worth = measure(simulation, state, rounds=asked.rounds, seconds=seconds)
        assert worth is not None
        accuracy.append(worth.accuracy.value)
        if seed >= asked.seeds:
            continue
        found, again = attacked(simulation, state, asked, judge, control=control)
        scores, repeats = scores + found, repeats + again
    reid = intervals.rate([bool(s.reidentified) for s in scores])
    ssim = intervals.mean([s.metrics["ssim"] for s in scores], [s.person for s in scores])
    return {
        "group": CONTROL if control else setting.group,
        "name": "no update" if control else setting.name,
        "label": label_skew(faces, parts),
        "light": feature_skew(faces, parts, lighting),
        "pose": feature_skew(faces, parts, pose),
        "repeats": repeats,
        "ssim": ssim.value,
        "ssim_low": ssim.low,
        "ssim_high": ssim.high,
        "least": min(s.metrics["ssim"] for s in scores),
        "first": sum(s.rank == 1 for s in scores),
        "hits": reid.hits,
        "n": reid.n,
        "reid": reid.value,
        "low": reid.low,
        "high": reid.high,
        "accuracy": mean(accuracy),
        "worst": min(accuracy),
        "best": max(accuracy),
        "seconds": time.process_time() - started,
    }


HEAD = (f"{'':11}{'':11}{'label':>6}{'light':>6}{'pose':>6}{'repeats':>8} │{'SSIM':>6}{'95 %':>10}"
        f"{'least':>6}{'rank-1':>8}{'re-id':>8}{'95 %':>10} │{'accuracy':>9}{'range':>12}"
        f"{'CPU s':>6}")  # fmt: skip


def shown(row: Mapping[str, Any]) -> str:
    """A row as columns."""
    between = f"{100 * row['low']:.0f}–{100 * row['high']:.0f}"
    alike = f"{row['ssim_low']:.2f}–{row['ssim_high']:.2f}"
    seeds = f"{row['worst']:.3f}–{row['best']:.3f}"
    return (f"{row['group']:11}{row['name']:11}{row['label']:6.2f}{row['light']:6.2f}"
            f"{row['pose']:6.2f}{row['repeats']:5}/{row['n']:<2} │{row['ssim']:6.3f}"
            f"{alike:>10}{row['least']:6.3f}{row['first']:5}/{row['n']:<2}{row['hits']:5}/{row['n']:<2}"
            f"{between:>10} │{row['accuracy']:9.3f}"
            f"{seeds:>12}{row['seconds']:6.0f}"
            )  # fmt: skip


def chart(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Leakage beside accuracy, a lane a setting; bars are 95 % intervals, or networks' range."""
    data = [{**row, "lane": f"{row['group']}: {row['name']}"} for row in rows]
    panels = []
    columns = (
        ("reid", "low", "high", "re-identified (share of photos)"),
        ("ssim", "ssim_low", "ssim_high", "mean SSIM of the photos"),
        ("accuracy", "worst", "best", "held-out verification, range of networks"),
    )
    for number, (value, low, high, name) in enumerate(columns):
        domain = [0.5, 1.0] if value == "accuracy" else [0.0, 1.0]
        lanes = alt.Y(
            "lane:N",
            scale=alt.Scale(domain=[row["lane"] for row in data]),
            title=None,
            axis=alt.Axis(labels=number == 0, ticks=False, grid=True, labelPadding=10),
        )
        drawn = [row for row in data if value != "accuracy" or row["group"] != CONTROL]
        base = alt.Chart(alt.Data(values=drawn)).encode(y=lanes)
        x = alt.X(f"{value}:Q", title=name, scale=alt.Scale(domain=domain))
        color = alt.Color("group:N", title=None, legend=None)
        bar = base.mark_rule(strokeWidth=2).encode(
            x=alt.X(f"{low}:Q", title=name, scale=alt.Scale(domain=domain)),
            x2=f"{high}:Q",
            color=color,
        )
        point = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=color)
        panels.append(alt.layer(bar, point).properties(width=230, height=alt.Step(24)))
    alt.hconcat(*panels, title=title).save(str(path), scale_factor=2)


def extremes(faces: FaceSet, path: Path) -> None:
    """For lighting, then pose: the photos of least, middle and greatest score in three rows."""
    shown_per_row = 14
    rows = []
    for judge in (lighting, pose):
        order = judge(faces.images).argsort()
        middle = (len(order) - shown_per_row) // 2
        for start in (0, middle, len(order) - shown_per_row):
            rows.append(torch.cat([*faces.images[order[start : start + shown_per_row]]], 2))
    picture = torch.cat(rows, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(path)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one target")
    parser.add_argument("--targets", type=int, default=3, help="attacked updates a seed")
    parser.add_argument("--seeds", type=int, default=2, help="attacked networks a setting")
    parser.add_argument("--networks", type=int, default=5, help="networks measured, at least those")
    parser.add_argument("--rounds", type=int, default=8, help="before the audited one")
    parser.add_argument("--batch", type=int, default=4, help="photos an update")
    parser.add_argument("--attack", choices=ATTACKS, default="map_inversion")
    parser.add_argument("--chart", type=Path, help="where the chart goes")
    parser.add_argument("--faces", type=Path, help="only draw the extremes of lighting and pose")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.faces:
        extremes(orl(size=64), options.faces)
        return
    asked = Asked(
        rounds=options.rounds,
        seeds=1 if options.quick else options.seeds,
        networks=1 if options.quick else options.networks,
        targets=1 if options.quick else options.targets,
        batch=options.batch,
        attack=options.attack,
    )
    faces = orl(size=32)
    judge = Judge.of(faces, split(faces, federation(SETTINGS[0], asked)))
    print(HEAD, flush=True)
    rows = []
    for setting in SETTINGS:
        rows.append(line(setting, asked, faces, judge))
        print(shown(rows[-1]), flush=True)
    # Its networks are the first line's: no more of them need be trained than are attacked.
    rows.append(line(SETTINGS[0], replace(asked, networks=0), faces, judge, control=True))
    print(shown(rows[-1]))
    print(judge.ceiling)
    if options.chart:
        batch = f"{asked.batch} photos" if asked.batch > 1 else "1 photo"
        chart(rows, options.chart, f"{asked.attack}, updates of {batch}, round {asked.rounds + 1}")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
