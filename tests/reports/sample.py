"""A realistic `Results` made of synthetic data, for the tests of the reports."""

import random
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from scipy.special import betaincinv

from fedaudit.core.measures import Estimate, Evidence, IdentityTest, Rate, Utility
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports.comparison import DefenseLine, Exposure, Row, Verdict
from fedaudit.reports.html import render
from fedaudit.reports.measurement import Measurement, Worst
from fedaudit.reports.pictures import Picture
from fedaudit.reports.results import (
    SCHEMA_VERSION,
    Ceiling,
    Contrast,
    Control,
    Coverage,
    EvidenceCell,
    EvidenceMatrix,
    EvidenceRow,
    Exhibit,
    Finding,
    Ledger,
    Provenance,
    Results,
    ScorePoint,
    Settings,
)
from fedaudit.scoring.metrics import declarations
from fedaudit.stats.crossed import crossed_mean

sys.path.insert(0, str(Path(__file__).parent))
from made_up import claim

THRESHOLD = 0.42
ATTACKS = ("inverting_gradients", "gan_inversion")
SCENARIOS = (
    ("fresh-b1", "face", 1, 1),
    ("trained-b1", "face", 30, 1),
    ("pooled-b4", "face_pooled", 1, 4),
)
# Hits of 16 by defense and attack, in the fresh scenario; verification accuracy; seconds.
DEFENSES = {
    "none": ((9, 12), 0.86, 212.0),
    "dpsgd ε=8": ((0, 1), 0.71, 388.0),
    "dplc": ((5, 8), 0.84, 231.0),
    "private_projector": ((3, 4), 0.85, 219.0),
    "pruning 90 %": ((6, 9), 0.79, 214.0),
}


def clopper_pearson(hits: int, n: int) -> Rate:
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, 0.025))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 0.975))
    return Rate(hits, n, hits / n, low, high)


def around(value: float, half: float, n: int, method: str = "bootstrap by person") -> Estimate:
    return Estimate(value, value - half, value + half, n, method)


def verdict(reid: Rate, prior: Rate, excess: Estimate) -> Verdict:
    numbers = (
        f"{reid.hits} of {reid.n} reconstructed faces were re-identified ({reid.value * 100:.0f} %,"
        f" 95 % CI {reid.low * 100:.0f}–{reid.high * 100:.0f} %); without the update,"
        f" {prior.hits} of {prior.n}."
    )
    if excess.low > 0:
        severity = "critical" if reid.low >= 0.5 else "high" if reid.low >= 0.1 else "medium"
        return Verdict("LEAK DEMONSTRATED", numbers, severity)  # type: ignore[arg-type]
    if reid.high <= 0.05:
        return Verdict("NO LEAK FOUND ABOVE LIMIT", numbers)
    return Verdict("INCONCLUSIVE", numbers, targets_needed=72)


def _identity(p_value: float, adjusted: float | None) -> IdentityTest:
    return IdentityTest(p_value, 6.0, 16, 16, 30, 1 / 20_000, exact=False, adjusted=adjusted)


def _row(scenario: tuple[str, str, int, int], defense: str, attack: int) -> Row:
    name, network, round_, batch = scenario
    hits, accuracy, seconds = DEFENSES[defense]
    n = 16 * batch
    kept = 1.0 if round_ == 1 and batch == 1 else 0.45 if round_ > 1 else 0.3
    found = round(hits[attack] * kept * batch)
    reid, prior = clopper_pearson(found, n), clopper_pearson(attack * batch, n)
    excess = around(reid.value - prior.value, 0.21 / batch**0.5, n)
    similarity = 0.18 + 0.5 * reid.value + 0.03 * attack
    private = defense.startswith("dp")
    return Row(
        scenario=name,
        network=network,
        method="fedsgd" if round_ == 1 else "fedavg",
        round=round_,
        batch_size=batch,
        defense=defense,
        attack=ATTACKS[attack],
        threat_model="D",
        adaptive="none needed" if defense == "none" else "known" if attack else "no",
        measurement=Measurement(
            n_targets=16,
            n_people=16,
            of="photos",
            attacked=("update",),
            metrics={
                "ssim": around(similarity, 0.07, n, "Student t"),
                "psnr": around(11 + 9 * similarity, 1.3, n, "Student t"),
                "mse": around(0.05 - 0.04 * similarity, 0.008, n, "Student t"),
                "lpips": around(0.72 - 0.5 * similarity, 0.06, n, "Student t"),
            },
            reid=reid,
            prior=prior,
            excess=excess,
            rank1=clopper_pearson(min(n, found + 1), n),
            worst=Worst(
                0.3 + 0.55 * reid.value**0.5,
                f"{name}--{defense}--{ATTACKS[attack]}--audit--t003--s0",
                0,
            ),
            prior_ssim=around(0.14 + 0.05 * attack, 0.05, n, "Student t"),
            labels=1.0 if batch == 1 else 0.81,
            seconds=41.3 + 170 * attack,
            identity=_identity(0.0004, 0.0021) if excess.low > 0 else _identity(0.21, 1.0),
            prior_identity=_identity(0.4, None),
        ),
        claims=(claim(8.0, "counts"),) if private else (),
        utility=worth(accuracy, seconds) if batch == 1 else None,
        verdict=verdict(reid, prior, excess),
        role="deployed" if defense == "none" else "alternative",
    )


def worth(accuracy: float, seconds: float = 30.0, *, untrained: float = 0.7) -> Utility:
    """Of ten people and two trainings, some of whom are easier."""
    ease = [0.01 * (k - 4.5) for k in range(10)]
    runs = tuple(tuple(accuracy + run + e for e in ease) for run in (-0.005, 0.005))
    fresh = tuple(tuple(untrained + 0.5 * e for e in ease) for _ in runs)
    gain = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(runs, fresh, strict=True)]
    return Utility(
        accuracy=crossed_mean(runs),
        untrained=crossed_mean(fresh),
        gain=crossed_mean(gain, low=-1),
        accuracies=runs,
        untrained_accuracies=fresh,
        tar_at_far={"1e-2": accuracy - 0.35},
        auc=accuracy + 0.06,
        pairs=900,
        rounds=30,
        seconds=seconds,
        bytes_per_client_round=1_204_224,
        central=crossed_mean([[0.9 + e for e in ease]]),
    )


def _line(rows: tuple[Row, ...], scenario: str, defense: str) -> DefenseLine:
    blind, adapted = (r for r in rows if r.scenario == scenario and r.defense == defense)
    bare = next(r for r in rows if r.scenario == scenario and r.attack == adapted.attack)
    utility = adapted.utility and replace(
        adapted.utility,
        step_seconds=0.5,
        plain_step_seconds=0.4,
        bytes_sent=602_112,
        plain_bytes_sent=602_112,
    )
    assert adapted.reid
    assert bare.reid
    return DefenseLine(
        scenario=scenario,
        defense=defense,
        name=defense.partition(" ")[0],
        settings={"strength": 0.9} if " " in defense else {},
        attack=adapted.attack,
        adaptive=adapted.adaptive,
        met_by_adaptive=True,
        verdict=adapted.verdict.kind,
        measurement=adapted.measurement,
        reid_blind=blind.reid,
        reid_adapted=adapted.reid,
        worst_cosine=adapted.worst_cosine,
        reduction=None
        if defense == "none"
        else around(bare.reid.value - adapted.reid.value, 0.2, adapted.reid.n),
        p_value=None if defense == "none" else 0.01,
        p_holm=None if defense == "none" else 0.04,
        utility=utility,
        accuracy_lost=accuracy_difference(bare.utility, utility)
        if utility and bare.utility
        else None,
        claims=adapted.claims,
        dominated_by="dplc" if defense.startswith("pruning") else None,
    )


def _exposures(rows: tuple[Row, ...]) -> tuple[Exposure, ...]:
    """Every kind of cell: attacked, attacked together, used beside, not run, not attacked."""
    cells = [_exposure(row, "update", 2_269_056, row.attack) for row in rows]
    assert rows[1].measurement
    people = replace(rows[1].measurement, of="people", n_people=6)
    fedgc = replace(rows[1], scenario="fedgc-b1", method="fedgc", measurement=people)
    clean = replace(fedgc, verdict=Verdict("NO LEAK FOUND ABOVE LIMIT", "0 of 400."))
    invalid = replace(fedgc, verdict=Verdict("INVALID", "A control failed."))
    nothing = {"verdict": "NOT TESTED", "measurement": None}
    update = _exposure(fedgc, "update", 2_269_056, ATTACKS[1])
    rows_ = replace(update, artifact="class_embeddings", summary="6 × 64 values", bytes=1536)
    both = ("update", "class_embeddings")
    note = "no attack in this study reads class_embeddings; template_inversion does"
    return (
        *cells,
        replace(update, together=both, note=f"the result is of {' + '.join(both)} together"),
        replace(update, attack=ATTACKS[0], **nothing, note="not run in this scenario"),  # type: ignore[arg-type]
        _exposure(clean, "update#2", 2_200_000, ATTACKS[0]),
        _exposure(invalid, "update#2", 2_200_000, ATTACKS[1]),
        replace(
            rows_,
            artifact="buffers",
            together=("update", "buffers"),
            **nothing,  # type: ignore[arg-type]
            note=f"{ATTACKS[1]} uses it beside update, where its result stands",
        ),
        replace(
            rows_,
            readers=("template_inversion",),
            attack=None,
            together=(),
            **nothing,  # type: ignore[arg-type]
            note=f"not attacked: {note}",
        ),
    )


def _exposure(row: Row, artifact: str, size: int, attack: str) -> Exposure:
    return Exposure(
        scenario=row.scenario,
        network=row.network,
        method=row.method,
        round=row.round,
        defense=row.defense,
        artifact=artifact,
        summary=f"16 tensors, {size // 4:,} values",
        bytes=size,
        sent=16,
        targets=16,
        readers=ATTACKS,
        attack=attack,
        together=(artifact,),
        verdict=row.verdict.kind,
        measurement=row.measurement,
        note="",
    )


def _points(rows: tuple[Row, ...]) -> tuple[ScorePoint, ...]:
    draw = random.Random(7)
    points = []
    for row in rows:
        assert row.reid is not None
        for i in range(row.reid.n):
            hit = i < row.reid.hits
            cosine = draw.uniform(THRESHOLD, 0.8) if hit else draw.uniform(-0.1, THRESHOLD - 0.02)
            points.append(ScorePoint(row.scenario, row.defense, row.attack, "audit", cosine))
            prior = draw.gauss(0.12, 0.1)
            points.append(ScorePoint(row.scenario, row.defense, row.attack, "prior_only", prior))
        if row.defense == "none":
            noise = [draw.gauss(0.0, 0.06) for _ in range(row.reid.n)]
            points += [ScorePoint(row.scenario, "none", row.attack, "noise", c) for c in noise]
    return tuple(points)


def _exhibits(rows: tuple[Row, ...]) -> tuple[Exhibit, ...]:
    draw = random.Random(11)
    shown = []
    for i in range(24):
        row = rows[draw.randrange(len(rows))] if i >= 12 else rows[i % 12]
        target = 3 if i < 12 else draw.randrange(16)
        cosine = (row.worst_cosine or 0.0) if i < 12 else draw.uniform(-0.05, 0.7)
        cell = f"{row.scenario}--{row.defense}--{row.attack}--audit--t{target:03d}--s0"
        shown.append(
            Exhibit(
                selection="worst" if i < 12 else "random",
                cell=cell,
                prior_cell=cell.replace("--audit--", "--prior_only--"),
                image=0,
                scenario=row.scenario,
                defense=row.defense,
                attack=row.attack,
                round=row.round,
                person=f"s{target + 1}",
                verdict=row.verdict.kind,
                cosine=cosine,
                threshold=THRESHOLD,
                prior_cosine=draw.gauss(0.12, 0.08),
                metrics={
                    "ssim": 0.15 + 0.6 * max(0.0, cosine),
                    "lpips": 0.7 - 0.5 * max(0.0, cosine),
                },
            )
        )
    return tuple(sorted(shown, key=lambda e: (e.selection == "random", -(e.cosine or 0))))


def _matrices(rows: tuple[Row, ...]) -> tuple[EvidenceMatrix, ...]:
    """Two photos a scenario; under the last defense one was not attacked."""
    attack = rows[0].attack
    matrices = []
    for scenario, *_ in SCENARIOS:
        columns = tuple((defense, attack) for defense in DEFENSES)
        table = []
        for k in range(2):
            cells = [
                EvidenceCell(
                    cell=f"{scenario}--{defense}--{attack}--audit--t{k:03d}--s0",
                    image=0,
                    cosine=0.7 - 0.2 * column,
                    match=column < 2,
                    metrics={"ssim": 0.8, "lpips": 0.1, "psnr": 22.0, "mse": 0.01},
                    steps=120,
                    restarts=1,
                    seconds=3.5,
                    adaptive="known",
                    history=((10, 1.2), (60, 0.4), (120, 0.2)),
                    nearest=((f"person {k}", 0.7 - 0.2 * column), ("person 9", 0.1)),
                )
                for column, defense in enumerate(DEFENSES)
            ]
            last = None if k else cells[-1]
            table.append(EvidenceRow(f"person {k}", 0, (*cells[:-1], last)))
        matrices.append(EvidenceMatrix(scenario, columns, tuple(table), 16, 0.42))
    return tuple(matrices)


def _findings() -> tuple[Finding, ...]:
    return (
        Finding(
            "F-001",
            "critical",
            "high",
            "Faces come back from updates",
            "Faces come back from undefended updates of a fresh model",
            "A curious server that sees one FedSGD gradient of one image re-identifies the person.",
            "12 of 16 faces re-identified (75 %, 95 % CI 48–93 %); prior only 1 of 16.",
            "fresh-b1: face, fedsgd, round 1, batch 1; gan_inversion; threat model D",
            "Do not share raw updates. DP-SGD at ε = 8 lowered re-identification from 75 % to 6 %"
            " (95 % CI 0–30 %) at 15 points of verification accuracy.",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
            "a3f1c09b7d52e684",
        ),
        Finding(
            "F-002",
            "high",
            "medium",
            "Faces come back from updates",
            "DPLC's class centers do not hide the backbone's gradient",
            "The defense protects the head; the backbone's update still carries the face.",
            "8 of 16 faces re-identified (50 %, 95 % CI 25–75 %).",
            "fresh-b1: dplc with its published settings; gan_inversion, adaptive",
            "Combine with a defense of the backbone; none was measured in this study.",
            ("NISTAML.032", "AML.M0012"),
            "0be4471fa9c8d233",
        ),
        Finding(
            "F-003",
            "low",
            "high",
            "Labels are recovered from batches of four",
            "Labels are recovered from batches of four",
            "The multiset of labels is read off the head's bias gradient.",
            "81 % of labels on average over 16 targets.",
            "pooled-b4: face_pooled, fedsgd, round 1, batch 4",
            "Withhold the head; private_projector does so.",
            ("NISTAML.034",),
            "77d0e2a1b6c4f905",
        ),
    )


def _coverage() -> tuple[Coverage, ...]:
    return (
        Coverage(
            "Reconstruction by gradient matching",
            True,
            True,
            "9 of 16 at worst",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
        ),
        Coverage(
            "Reconstruction with a generative prior",
            True,
            True,
            "12 of 16 at worst",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
        ),
        Coverage(
            "Analytic reconstruction (head inversion)", True, True, "0 of 64", ("NISTAML.032",)
        ),
        Coverage("Label recovery", True, True, "81 % of labels", ("NISTAML.034",)),
        Coverage(
            "Membership inference", True, False, "—", ("NISTAML.033", "AML.T0024.000", "ML04:2023")
        ),
        Coverage("Malicious server (manipulated parameters)", False, False, "—", ("NISTAML.032",)),
    )


def _ceiling(scenario: str, judge: str, hits: int) -> Ceiling:
    known, first = clopper_pearson(hits, 64), clopper_pearson(63, 64)
    return Ceiling(scenario, 64, known, first, THRESHOLD, 1e-3, 15600, 40, 5, judge)


def sample(*, underpowered: bool = True) -> Results:
    """Three scenarios, five defenses, two attacks."""
    rows = tuple(_row(s, d, a) for s in SCENARIOS for d in DEFENSES for a in range(2))
    worst = max(rows, key=lambda r: r.reid.low if r.reid else 0.0)
    ledger = tuple(
        Ledger(
            name,
            "D",
            ("model", "basic", "training", "auxiliary", "labels"),
            ("statistics", "manipulation"),
            f"SGD, lr 0.1, 1 local step, batch {batch}",
            f"{'fresh' if round_ == 1 else 'trained'} {network}, round {round_}",
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
        defenses=tuple(_line(rows, s[0], d) for s in SCENARIOS for d in DEFENSES),
        exposures=_exposures(rows),
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
        coverage=_coverage(),
        findings=_findings(),
        exhibits=_exhibits(rows),
        matrices=_matrices(rows),
        points=_points(rows),
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
