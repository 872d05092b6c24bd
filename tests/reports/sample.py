"""A realistic `Results` made of synthetic data, for the tests of the reports."""

import sys
from functools import cache
from pathlib import Path

import torch

from fedaudit.core.measures import Evidence
from fedaudit.reports.html import render
from fedaudit.reports.pictures import Picture
from fedaudit.reports.results import (
    SCHEMA_VERSION,
    Ceiling,
    Contrast,
    Control,
    Ledger,
    Provenance,
    Results,
    Settings,
)
from fedaudit.scoring.metrics import declarations

sys.path.insert(0, str(Path(__file__).parent))
from sample_exhibits import exhibits_of, exposures_of, matrices_of, points_of
from sample_findings import made_coverage, made_findings
from sample_rows import DEFENSES, SCENARIOS, THRESHOLD, around, clopper_pearson, line_of, row_of


def _ceiling(scenario: str, judge: str, hits: int) -> Ceiling:
    known, first = clopper_pearson(hits, 64), clopper_pearson(63, 64)
    return Ceiling(scenario, 64, known, first, THRESHOLD, 1e-3, 15600, 40, 5, judge)


def sample(*, underpowered: bool = True) -> Results:
    """Three scenarios, five defenses, two attacks."""
    rows = tuple(row_of(s, d, a) for s in SCENARIOS for d in DEFENSES for a in range(2))
    worst = max(rows, key=lambda r: r.reid.low if r.reid else 0.0)
    ledger = tuple(
        Ledger(
            name,
            "D",
            ("model", "basic", "training", "auxiliary", "labels"),
            ("statistics", "manipulation"),
            f"audited update: 1 local step, batch {batch}, lr 0.1",
            f"{'fresh' if round_ == 1 else 'trained'} {network}, round {round_}",
            "30 rounds of 5 clients" if batch == 1 else "",
        )
        for name, network, round_, batch in SCENARIOS
    )
    contrasts = tuple(
        Contrast(
            name,
            defense,
            metric,
            metric != "lpips",
            "gan_inversion",
            "inverting_gradients",
            around(
                (0.11 - 0.03 * i) * (-1 if metric == "lpips" else 1), 0.08, 16, "paired bootstrap"
            ),
            211.3,
            41.3,
        )
        for metric in ("ssim", "lpips", "reid")
        for i, (name, defense) in enumerate(
            (s[0], d) for s in SCENARIOS[:2] for d in ("none", "dplc")
        )
    )
    return Results(
        schema_version=SCHEMA_VERSION,
        study="ORL faces: three defenses of FedSGD and FedAvg",
        description="What a curious server recovers from one client's update: 40 people, 64 px.",
        underpowered=underpowered,
        release_context="Updates travel over TLS to one aggregator run by the consortium;"
        " no secure aggregation.",
        headline=worst.verdict,
        headline_row=rows.index(worst),
        deployed=("none",),
        settings=Settings(0.05, 0.95, 1e-3, 20260),
        metrics=declarations(),
        rows=rows,
        defenses=tuple(line_of(rows, s[0], d) for s in SCENARIOS for d in DEFENSES),
        exposures=exposures_of(rows),
        contrasts=contrasts,
        ceilings=tuple(_ceiling(s[0], "sface", 61) for s in SCENARIOS),
        other_ceilings=tuple(_ceiling(s[0], "dlib", 58) for s in SCENARIOS),
        controls=(
            Control(
                "Positive",
                "fresh-b1",
                "12 of 16 re-identified",
                "at least half of the targets",
                True,
            ),
            Control(
                "Noise", "fresh-b1", "0 of 16 re-identified", "no more than the FMR allows", True
            ),
            Control(
                "Prior only",
                "fresh-b1",
                "1 of 16 re-identified",
                "reported, paired with each row",
                True,
            ),
            Control(
                "Wrong client", "fresh-b1", "0 of 160 matched", "no more than the FMR allows", True
            ),
            Control(
                "FMR calibration",
                "fresh-b1",
                "15,600 impostor pairs",
                "≥ 3,000 pairs for 1e-3",
                True,
            ),
            Control(
                "Positive",
                "trained-b1",
                "5 of 16 re-identified",
                "at least half of the targets",
                False,
            ),
            Control("Noise", "pooled-b4", "not run", "no more than the FMR allows", None),
        ),
        coverage=made_coverage(),
        findings=made_findings(),
        exhibits=exhibits_of(rows),
        matrices=matrices_of(rows),
        points=points_of(rows),
        ledger=ledger,
        provenance=Provenance(
            "0.1.0",
            "fedaudit audit study.toml --output runs/orl",
            "2026-11-24T09:12:44+00:00",
            5123.8,
            "3.11.2",
            "Linux-6.1.0-x86_64",
            2,
            {"torch": "2.13.0+cpu", "opacus": "1.6.0", "lpips": "0.1.4"},
            "cdd25593b0c64f4ab11e7d22c0a7e6f6f3d19e11",
            (0,),
            "orl (40 people × 10 photos, 64 px)",
            "AT&T Laboratories Cambridge; research use, credit required",
            {"face_gan": "code MIT; trained on DigiFace-1M: non-commercial research only"},
            {"config": "9f" * 32, "data": "1c" * 32, "embedder weights": "e7" * 32},
        ),
        limitations=(
            "16 targets a scenario: intervals are wide, and differences of less than 25 points are "
            "noise.",
            "One data set of cooperative, frontal, gray photos; other faces may leak more or less.",
            "The generator was trained on faces from elsewhere; a closer prior would recover more.",
        ),
    )


def pictures(results: Results, size: int = 64) -> dict[tuple[str, int], Picture]:
    """Blobs in place of faces, for every exhibit and the worst pair."""
    generator = torch.Generator().manual_seed(3)
    ramp = torch.linspace(0, 1, size)
    wanted = [(e.cell, e.image) for e in results.exhibits]
    wanted += [
        (cell.cell, cell.image)
        for matrix in results.matrices
        for row in matrix.rows
        for cell in row.cells
        if cell
    ]
    wanted += [(e.prior_cell, e.image) for e in results.exhibits if e.prior_cell]
    worst = [r.measurement.worst for r in results.rows if r.measurement]
    wanted += [(place.cell, place.image) for place in worst if place]
    found: dict[tuple[str, int], Picture] = {}
    for key in wanted:
        base = (ramp[None, :, None] + ramp[None, None, :]).expand(3, -1, -1) / 2
        noise = torch.rand(3, size, size, generator=generator)
        found[key] = Picture(base.clone(), (0.7 * base + 0.3 * noise).clamp(0, 1))
    return found


@cache
def page(evidence: Evidence) -> str:
    """The sample's page, rendered once for all tests that only read it."""
    results = sample()
    return render(results, pictures(results) if evidence == "full" else None, evidence)
