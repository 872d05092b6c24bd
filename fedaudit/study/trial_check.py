"""Whether cells that a run folder holds are those of its study."""

from collections.abc import Iterable

from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.trial import POSITIVE, Trial


def check_trials(study: Study, trials: Iterable[Trial]) -> None:
    """Refuse cells that the study does not have, and comparisons of people that are none.

    Raises:
        ValueError: Says which cell, and what is wrong with it.
    """
    scenarios = {scenario.name: scenario for scenario in study.scenarios}
    for trial in trials:
        scenario = scenarios.get(trial.cell.scenario)
        if scenario is None or not _is_of(trial, scenario, study):
            raise ValueError(f"cell {trial.cell.key} is none of its study")
        if (lineup := trial.lineup) is None:
            continue
        people, present = set(lineup.people), set(lineup.present)
        whole = len(people) == len(lineup.people) and len(present) == len(lineup.present)
        each = [len(row) == len(lineup.people) for row in lineup.cosines]
        if not (whole and present <= people and len(each) == len(present) and all(each)):
            raise ValueError(f"cell {trial.cell.key} compares people who are not there")


def _is_of(trial: Trial, scenario: Scenario, study: Study) -> bool:
    cell = trial.cell
    defense = cell.defense in {choice.label for choice in scenario.defenses}
    attack = cell.role == "noise" or cell.attack in {choice.label for choice in scenario.attacks}
    same = (cell.round, cell.batch_size) == (scenario.round, scenario.batch_size)
    number = cell.role in POSITIVE or 0 <= cell.target < scenario.targets
    return defense and attack and same and number and cell.seed in study.seeds
