"""An explanation with hostile names and made-up numbers."""

import torch

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.explanation import (
    Explanation,
    Game,
    Layer,
    Layers,
    Leakage,
    Origin,
    Player,
    Region,
    Regions,
    Round,
)

HOSTILE = '</script><script>alert(1)</script>"\u202e'


def about(value: float, width: float = 0.1) -> Estimate:
    return Estimate(value, value - width, value + width, 4, "Student's t over targets")


def leak(value: float) -> Leakage:
    hits = Rate(3, 4, 0.75, 0.19, 0.99)
    return Leakage(about(value), about(0.05), about(value - 0.05), about(0.6), hits, hits, 40)


def made_up(name: str = "a study") -> Explanation:
    parts = [("eyes", 0.9, 0.2), ("nose", 0.8, 0.3), ("mouth", 0.7, 0.4), ("outline", 0.6, 0.1)]
    layers = (
        Layer(name, ("a.",), 960, leak(0.1), leak(0.9), about(0.0)),
        Layer("embedding", ("embedding.",), 262144, leak(0.6), leak(0.3), about(0.6)),
        Layer("head", ("head.",), 3840, None, None, None),
    )
    clients = tuple(
        Player(f"{name} {k}", about(0.7), about(0.4), about(0.5), about(0.3), about(hidden))
        for k, hidden in enumerate((0.4, -0.4))
    )
    things = (Player(name, about(0.3), about(0.5), about(0.2)),)
    return Explanation(
        schema_version="1",
        study=name,
        scenario=name,
        network=name,
        method=name,
        defense="none",
        round=1,
        batch_size=1,
        image_size=32,
        threat_model="D",
        attacks=(name,),
        skipped=(name,),
        targets=4,
        seed=0,
        layers=Layers(leak(0.9), layers),
        rounds=(Round(1, leak(0.9), 0.6), Round(10, leak(0.5), None)),
        regions=Regions(
            tuple(
                Region(n, 0.25, about(s), about(0.1), about(h), about(h), about(h))
                for n, s, h in parts
            ),
            16,
            tuple(torch.linspace(0, 1, 256).tolist()),
            tuple(torch.linspace(0, 2, 256).tolist()),
            tuple(torch.linspace(2, 0, 256).tolist()),
            about(0.8),
            "blocks.9",
        ),
        artifacts=Game(things, about(0.1), about(0.9), "exact", 32),
        clients=Game(clients, about(0.0), about(0.9), "sampled", 31),
        notes=(name,),
        source=Origin("0", name, None, {"torch": "2"}, {name: "00"}, name),
    )
