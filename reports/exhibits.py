"""Which pictures the gallery shows: the worst, and a random draw so that the worst is not all."""

import random
from collections.abc import Mapping
from dataclasses import replace

from fedaudit.core.scenario import Study
from fedaudit.core.trial import ImageScore, Trial
from fedaudit.reports.comparison import Row
from fedaudit.reports.results import Exhibit, ScorePoint
from fedaudit.reports.trials import Trials

SHOWN = 12
SEED = 20
OF_FEW = {"update_noise", "half_steps"}
"""Roles whose cells are of few targets; they are drawn nowhere."""


def exhibits(
    study: Study,
    trials: Trials,
    rows: tuple[Row, ...],
    thresholds: Mapping[str, float | None],
) -> tuple[Exhibit, ...]:
    """The 12 worst and 12 others drawn at random, from audited cells only."""
    candidates = [
        (trial, k, image)
        for trial in sorted(trials.of_role("audit"), key=lambda t: t.cell.key)
        for k, image in enumerate(trial.images)
    ]
    ranking = sorted(candidates, key=lambda item: _badness(item[2]), reverse=True)
    worst, rest = ranking[:SHOWN], sorted(ranking[SHOWN:], key=lambda item: item[0].cell.key)
    sample = random.Random(SEED).sample(rest, min(SHOWN, len(rest)))  # a fixed choice  # nosec B311
    verdicts = {(r.scenario, r.defense, r.attack): r.verdict.kind for r in rows}
    by_key = {trial.cell.key: trial for trial in trials.all}
    result = []
    for selection, items in (("worst", worst), ("random", sample)):
        for trial, k, image in items:
            cell = trial.cell
            prior = _prior(trial, by_key)
            result.append(
                Exhibit(
                    selection=selection,  # type: ignore[arg-type]
                    cell=cell.key,
                    prior_cell=prior.cell.key if prior else None,
                    image=k,
                    scenario=cell.scenario,
                    defense=cell.defense,
                    attack=cell.attack,
                    round=cell.round,
                    person=f"{image.person} (nearest: {image.nearest})"
                    if image.nearest
                    else image.person,
                    verdict=verdicts[cell.scenario, cell.defense, cell.attack],
                    cosine=image.cosine,
                    threshold=thresholds[cell.scenario],
                    prior_cosine=prior.images[k].cosine
                    if prior and k < len(prior.images)
                    else None,
                    metrics=image.metrics,
                )
            )
    return tuple(result)


def points(trials: Trials) -> tuple[ScorePoint, ...]:
    """Every image's identity cosine, in audits, prior-only controls and random images."""
    return tuple(
        ScorePoint(t.cell.scenario, t.cell.defense, t.cell.attack, t.cell.role, image.cosine)
        for t in sorted(trials.all, key=lambda trial: trial.cell.key)
        for image in t.images
        if image.cosine is not None and t.cell.role not in OF_FEW
    )


def _badness(image: ImageScore) -> tuple[float, float]:
    cosine, ssim = image.cosine, image.metrics.get("ssim")
    return (-2.0 if cosine is None else cosine), (-2.0 if ssim is None else ssim)


def _prior(trial: Trial, by_key: dict[str, Trial]) -> Trial | None:
    prior = by_key.get(replace(trial.cell, role="prior_only").key)
    return prior if prior and prior.images else None
