"""Large results: many defenses in one scenario, many trials."""

import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample
from sample_rows import THRESHOLD

from fedaudit.reports.results import Results, ScorePoint


def many(defenses: int = 25, trials: int = 0) -> Results:
    """The first scenario of the sample with this many defenses, and points of `trials` trials."""
    full = sample()
    scenario = full.rows[0].scenario
    rows, lines = [], []
    for k in range(defenses):
        name = "none" if k == 0 else f"defense_{k}"
        like = "none" if k == 0 else [x.defense for x in full.defenses][1 + k % 4]
        rows += [
            replace(r, defense=name)
            for r in full.rows
            if (r.scenario, r.defense) == (scenario, like)
        ]
        lines += [
            replace(x, defense=name, name=name)
            for x in full.defenses
            if (x.scenario, x.defense) == (scenario, like)
        ]
    columns = tuple((line.defense, line.attack or "") for line in lines)
    matrix = full.matrices[0]
    table = tuple(
        replace(row, cells=tuple(row.cells[k % len(row.cells)] for k in range(defenses)))
        for row in (matrix.rows * 6)[:12]
    )
    exposures = [e for e in full.exposures if e.scenario == scenario and e.artifact == "update"]
    draw = random.Random(3)
    points = [
        ScorePoint(
            scenario, lines[k % defenses].defense, rows[0].attack, "audit", draw.uniform(-0.1, 0.9)
        )
        for k in range(trials)
    ]
    return replace(
        full,
        rows=tuple(rows),
        headline_row=1,
        defenses=tuple(lines),
        matrices=(replace(matrix, columns=columns, rows=table, threshold=THRESHOLD),),
        exhibits=tuple(e for e in full.exhibits if e.scenario == scenario),
        exposures=tuple(replace(e, defense=line.defense) for line in lines for e in exposures[:2]),
        contrasts=tuple(c for c in full.contrasts if c.scenario == scenario),
        points=tuple(points) or tuple(p for p in full.points if p.scenario == scenario),
        ledger=full.ledger[:1],
        ceilings=full.ceilings[:1],
        other_ceilings=full.other_ceilings[:1],
    )
