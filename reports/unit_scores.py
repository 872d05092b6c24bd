"""Scores over independent units, for rates, differences and means.

A unit is one person, or an update of several (`fedaudit.stats.units`).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf

from fedaudit.core.measures import Estimate, Rate
from fedaudit.core.trial import ImageScore
from fedaudit.reports.trials import Group, Place
from fedaudit.stats import intervals
from fedaudit.stats.units import units

Scores = Mapping[Place, ImageScore]
Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-inf, inf)


def unit_of(scores: Scores, *, scored_alone: bool = False) -> dict[Place, int]:
    """The unit of each score: updates are one where photos of a person are behind both.

    The same counts as what a study can settle (`fedaudit.study.reach`).

    Args:
        scores: By place.
        scored_alone: Only people who are scored make updates one, not those beside them: who was
            behind an update plays no part in whether it shows somebody who was not.
    """
    people: dict[int, set[str]] = defaultdict(set)
    for (target, _, _), score in scores.items():
        people[target].update((score.person, *(() if scored_alone else score.beside)))
    numbers = dict(zip(people, units(list(people.values())), strict=True))
    return {place: numbers[place[0]] for place in scores}


def word_for(scores: Scores, *, scored_alone: bool = False) -> str:
    """What a unit is: a person, an update of several people, or updates that share people."""
    of = unit_of(scores, scored_alone=scored_alone)
    people = {(unit, scores[place].person) for place, unit in of.items()}
    updates = {(unit, place[0]) for place, unit in of.items()}
    count = len(set(of.values()))
    if len(people) == count:
        return "people"
    return "updates" if len(updates) == count else "groups of updates"


def is_reidentified(score: ImageScore) -> bool:
    """Whether the image counts as a photo of the right person."""
    return bool(score.reidentified)


def first_of_all(score: ImageScore) -> bool:
    """Whether nobody in the gallery is closer than the right person."""
    return score.rank == 1


def outcomes(
    *sides: Scores, success: Callable[[ImageScore], bool] = is_reidentified
) -> tuple[list[bool], ...]:
    """For each unit and side, whether it was re-identified, on images that all sides have.

    It did where any of its images succeeds in at least half of the seeds: a face that comes back is
    enough. One of two seeds is half, so that a lucky one may do: a tie counts against a clean word,
    which rests on the rate's upper end, and demonstrates no leak, as the test on identity takes the
    mean over seeds and a control's ties count like the attack's (`difference`s are paired).
    """
    common = sorted(set.intersection(*(set(side) for side in sides)))
    of = unit_of(_of_all(common, sides))
    return tuple(_fold(side, of, success) for side in sides)


def _of_all(common: Sequence[Place], sides: Sequence[Scores]) -> Scores:
    """The first side's scores with whoever is behind the update on any side: what is one unit on
    one side (a secure sum) is none that counts more in a comparison with another.
    """
    merged = {}
    for place in common:
        beside = dict.fromkeys(name for side in sides for name in side[place].beside)
        merged[place] = replace(sides[0][place], beside=tuple(beside))
    return merged


def _fold(
    side: Scores, of: Mapping[Place, int], success: Callable[[ImageScore], bool]
) -> list[bool]:
    seeds: dict[tuple[int, int, int], list[bool]] = defaultdict(list)
    for (target, seed, image), unit in of.items():
        seeds[unit, target, image].append(success(side[target, seed, image]))
    outcome: dict[int, bool] = defaultdict(bool)
    for (unit, _, _), tries in seeds.items():
        outcome[unit] |= 2 * sum(tries) >= len(tries)
    return [outcome[unit] for unit in sorted(outcome)]


def rate_of(group: Group, success: Callable[[ImageScore], bool] = is_reidentified) -> Rate:
    """The rate over units, which the interval counts."""
    scores = group.scores()
    return intervals.rate(outcomes(scores, success=success)[0], word_for(scores))


def rate_of_any(group: Group, success: Callable[[ImageScore], bool]) -> Rate:
    """The rate over units of which any image succeeds in any seed."""
    scores = group.scores()
    of = unit_of(scores)
    outcome = dict.fromkeys(sorted(of.values()), False)
    for place, score in scores.items():
        outcome[of[place]] |= success(score)
    return intervals.rate(list(outcome.values()), word_for(scores))


def difference(
    first: Scores,
    second: Scores,
    value: Callable[[ImageScore], float],
    bounds: Bounds = UNBOUNDED,
) -> Estimate | None:
    """Mean of first − second over units, on the images that both have; None without any.

    `bounds` are the least and largest possible difference.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    gaps = [value(first[place]) - value(second[place]) for place in common]
    return mean(_of_all(common, (first, second)), gaps, bounds)


def mean(scores: Scores, values: Sequence[float], bounds: Bounds = UNBOUNDED) -> Estimate:
    """The mean over units, which the interval counts; `values` are in the order of the scores.

    `bounds` are the least and largest possible value.
    """
    each = means(scores, values)
    return intervals.mean(each, range(len(each)), bounds)


def means(scores: Scores, values: Sequence[float]) -> list[float]:
    """The mean of each unit; `values` are in the order of the scores."""
    of = unit_of(scores)
    groups: dict[int, list[float]] = defaultdict(list)
    for place, value in zip(scores, values, strict=True):
        groups[of[place]].append(value)
    return [sum(group) / len(group) for _, group in sorted(groups.items())]
