"""Controls in which nobody may be matched: random images, and another client's person."""

from collections.abc import Callable, Iterable

from fedaudit.core.trial import ImageScore, Trial
from fedaudit.reports.results import Control
from fedaudit.reports.text import NBSP, percent
from fedaudit.reports.trials import Place
from fedaudit.reports.unit_scores import unit_of, word_for
from fedaudit.reports.verdicts import rate_text
from fedaudit.stats.rare_matches import ERROR, rare_matches

Line = tuple[str, str, str]


def negative_control(
    name: str,
    trials: Iterable[Trial],
    matched: Callable[[ImageScore], bool | None],
    fmr: float,
) -> Control:
    """Whether no row matches more often than chance, by ten times what calibration promises.

    Ten times, as the rate is calibrated on a sample, and reconstructions of one photo resemble
    each other, so that few false matches can repeat.

    Args:
        name: Of the control.
        trials: In which it was tried.
        matched: Whether an image matched whom it may not; None where it was not tried.
        fmr: The false match rate of one try.
    """
    chance = min(1.0, 10 * fmr)
    share, error = (percent(x).replace(NBSP, " ") for x in (chance, ERROR))
    requirement = f"no row above {share} a try (ten times the FMR), at an error of {error} over all"
    rows: dict[Line, dict[Place, ImageScore]] = {}
    for trial in trials:
        cell = trial.cell
        for k, image in enumerate(trial.images):
            if matched(image) is not None:
                mine = rows.setdefault((cell.scenario, cell.defense, cell.attack), {})
                mine[cell.target, cell.seed, k] = image
    if not rows:
        return Control(name, "all", "not run", requirement, None)
    tries = []
    for scores in rows.values():
        of_unit: dict[int, list[bool]] = {}
        for place, unit in unit_of(scores, scored_alone=True).items():
            of_unit.setdefault(unit, []).append(bool(matched(scores[place])))
        tries.append([*of_unit.values()])
    words = [word_for(scores, scored_alone=True) for scores in rows.values()]
    found = rare_matches(tries, chance, words)
    outcome = rate_text(found.rate)
    if found.half:
        outcome += " in at least half of their tries"
    if len(rows) > 1:
        outcome += f" in the worst of {len(rows)} rows ({', '.join([*rows][found.row])})"
    if found.held is None:
        outcome += "; so few decide nothing"
    return Control(name, "all", outcome, requirement, found.held)
