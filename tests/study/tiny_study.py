"""A study of two faces, every role, a fresh and a trained model, that takes seconds."""

from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.trial import Cell
from fedaudit.study.jobs import AttackJob, expand

ATTACKS = (
    Choice("inverting_gradients", {"steps": 3}),
    Choice(
        "gan_inversion",
        {"candidates": 4, "latent_steps": 1, "stage_steps": 1, "pixel_steps": 2},
    ),
)
STUDY = Study(
    name="tiny",
    scenarios=(
        Scenario("fresh", targets=2, defenses=(Choice("none"), Choice("dplc")), attacks=ATTACKS),
        Scenario("trained", round=2, targets=1, attacks=ATTACKS[:1]),
    ),
    size=32,
    federation=Federation(clients=3, rounds=1),
    utility=False,
)
CELLS = tuple(job.cell for job in expand(STUDY) if isinstance(job, AttackJob))


def first_cell(scenario: str) -> Cell:
    return next(c for c in CELLS if c.scenario == scenario)
