"""What the sample shows beside its rows: things that were sent, scores, pictures, evidence."""

import random
import sys
from dataclasses import replace
from pathlib import Path

from fedaudit.reports.comparison import Exposure, Row, Verdict
from fedaudit.reports.results import EvidenceCell, EvidenceMatrix, EvidenceRow, Exhibit, ScorePoint

sys.path.insert(0, str(Path(__file__).parent))
from sample_rows import ATTACKS, DEFENSES, SCENARIOS, THRESHOLD


def exposures_of(rows: tuple[Row, ...]) -> tuple[Exposure, ...]:
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


def points_of(rows: tuple[Row, ...]) -> tuple[ScorePoint, ...]:
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


def exhibits_of(rows: tuple[Row, ...]) -> tuple[Exhibit, ...]:
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


def matrices_of(rows: tuple[Row, ...]) -> tuple[EvidenceMatrix, ...]:
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
