"""Studies and trials by hand, for the tests of the summary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedaudit.core.claims import Claim, Gap
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.trial import Cell, ImageScore, Lineup, Role, Trial
from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.results import Settings
from fedaudit.reports.rows import rows
from fedaudit.reports.trials import Trials
from fedaudit.scoring.identity import Gallery

IG, GAN = "inverting_gradients", "gan_inversion"
SETTINGS = Settings(reid_limit=0.05, confidence=0.95, fmr=1e-3, exhibit_seed=20)


ELIGIBLE = tuple(f"p{target}-{k}" for target in range(20) for k in range(2))
"""Who could have been a target: two people each of twenty."""


def study(
    *,
    defenses: Sequence[str] = ("none",),
    attacks: Sequence[str] = (IG,),
    targets: int = 8,
    batch_size: int = 1,
    threat_model: str = "D",
    names: Sequence[str] = ("fresh",),
    deployed: Sequence[str] = (),
) -> Study:
    return Study(
        name="made up",
        deployed=tuple(deployed),
        scenarios=tuple(
            Scenario(
                name,
                targets=targets,
                batch_size=batch_size,
                threat_model=threat_model,
                defenses=tuple(Choice(d) for d in defenses),
                attacks=tuple(Choice(a) for a in attacks),
            )
            for name in names
        ),
    )


def claim(epsilon: float = 8.0, *gaps: str, covers: tuple[str, ...] = ("update",)) -> Claim:
    """One round of DP-SGD, or of whatever `covers` is of."""
    return Claim(
        epsilon=epsilon,
        delta=1e-5,
        unit="image",
        neighbors="add or remove one",
        covers=covers,
        gaps=tuple(Gap(name, "sent in clear") for name in gaps),
        mechanism="DP-SGD",
        settings={"C": 1.0, "σ": 0.9},
        accountant="opacus rdp",
        sampling="Poisson sampling of images, q = 1",
    )


def trial(
    target: int,
    *,
    hits: Sequence[bool | None] = (False,),
    defense: str = "none",
    attack: str = IG,
    role: Role = "audit",
    scenario: str = "fresh",
    ssim: float = 0.3,
    cosine: float | None = None,
    lpips: float | None = 0.5,
    wrong: bool | None = False,
    people: Sequence[str] | None = None,
    seconds: float = 1.0,
    labels: float | None = 1.0,
    claims: tuple[Claim, ...] = (),
    batch_size: int = 1,
) -> Trial:
    """One target; its person is its number, and a hit's cosine is 0.8."""
    images = []
    for k, hit in enumerate(hits):
        seen = cosine
        if seen is None and hit is not None:
            seen = 0.8 if hit else 0.1
        person = people[k] if people else f"p{target}-{k}"
        rank = None if hit is None else 1 if hit else 9
        metrics = {"ssim": ssim, "psnr": 12.0, "mse": 0.05}
        if lpips is not None:
            metrics["lpips"] = lpips
        images.append(ImageScore(person, metrics, seen, hit, rank, wrong))
    cell = Cell(scenario, "face", "fedsgd", 1, batch_size, defense, attack, "D", target, 0, role)
    found = {image.person: bool(image.reidentified) for image in images}
    known = hits[0] is not None and set(found) <= set(ELIGIBLE)
    shown = lineup(found, seed=target) if known else None
    made = Trial(cell, tuple(images), labels, 0.1, 3, 3, seconds, "known", claims, lineup=shown)
    return replace(made, closed_form=True)  # its effort is enough


def lineup(found: Mapping[str, bool], seed: int = 0) -> Lineup:
    """Whoever is found is closest to what was rebuilt in their place; else it resembles nobody."""
    rows = np.random.default_rng(seed).uniform(-0.2, 0.2, (len(found), len(ELIGIBLE)))
    for row, (person, hit) in zip(rows, found.items(), strict=True):
        if hit:
            row[ELIGIBLE.index(person)] = 0.8
    return Lineup(ELIGIBLE, tuple(found), tuple(tuple(row) for row in rows.tolist()))


def line(
    hits: int,
    n: int = 8,
    *,
    prior: int | None = 0,
    ssim: Callable[[int], float] = lambda target: 0.5 + 0.01 * target,
    prior_ssim: Callable[[int], float] = lambda target: 0.2 + 0.01 * target,
    **more: object,
) -> list[Trial]:
    """An attack on n targets with that many hits (the first ones), and its prior-only control."""
    made = [trial(t, hits=(t < hits,), ssim=ssim(t), **more) for t in range(n)]  # type: ignore[arg-type]
    if prior is not None:
        made += [
            trial(t, hits=(t < prior,), role="prior_only", ssim=prior_ssim(t), **more)  # type: ignore[arg-type]
            for t in range(n)
        ]
    return made


def noise(hits: int, n: int = 8) -> list[Trial]:
    return [trial(t, hits=(t < hits,), attack="noise", role="noise", wrong=None) for t in range(n)]


def trials(*groups: Iterable[Trial]) -> Trials:
    return Trials(tuple(one for group in groups for one in group))


def table(asked: Study, *groups: Iterable[Trial]) -> tuple[Row, ...]:
    return rows(asked, trials(*groups), {}, SETTINGS, gallery())


def measured(row: Row) -> Measurement:
    assert row.measurement is not None
    return row.measurement


def gallery(*, threshold: float | None = 0.4, fmr: float = 1e-3) -> Gallery:
    import torch

    return Gallery(
        people=tuple(f"p{k}" for k in range(40)),
        templates=torch.eye(40),
        center=torch.zeros(40),
        photos=200,
        threshold=threshold,
        fmr=fmr,
        impostor_pairs=7800,
        ceiling_hits=190,
        ceiling_first=195,
        ceiling_n=200,
    )
