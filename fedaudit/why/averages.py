"""From attacked targets to means with intervals."""

from collections import defaultdict
from collections.abc import Sequence

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.explanation import Leakage
from fedaudit.stats.intervals import rate
from fedaudit.why.exposure import Leak
from fedaudit.why.shapley import interval

METHOD = "Student's t over targets"


def estimate(values: Sequence[float], people: Sequence[str]) -> Estimate:
    """Mean over targets with Student's 95 % interval; targets of the same `people` are one.

    A bootstrap of four targets has far too narrow an interval. One target has none: the interval
    is then the whole line between −1 and 1, where all that is averaged here lies.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for value, person in zip(values, people, strict=True):
        groups[person].append(value)
    means = [sum(group) / len(group) for group in groups.values()]
    middle = sum(values) / len(values)
    if len(means) < 2:
        return Estimate(middle, -1.0, 1.0, len(means), METHOD)
    spread = interval(means)
    half = (spread.high - spread.low) / 2
    return Estimate(middle, max(-1.0, middle - half), min(1.0, middle + half), len(means), METHOD)


def difference(first: Sequence[Leak], second: Sequence[Leak]) -> Estimate:
    """Mean SSIM of first − second, target by target."""
    people = [leak.people for leak in first]
    return estimate([a.ssim - b.ssim for a, b in zip(first, second, strict=True)], people)


def leakage(audit: Sequence[Leak], control: Sequence[Leak], gallery: int) -> Leakage:
    """All that is said of one setting; `gallery` is the number of people in it."""
    people = [leak.people for leak in audit]
    images = [image for leak in audit for image in leak.images]
    cosines = [leak.cosine for leak in audit if leak.cosine is not None]
    hits = [image.reidentified for image in images if image.reidentified is not None]
    ranks = [image.rank for image in images if image.rank is not None]
    reid: Rate | None = rate(hits) if hits else None
    return Leakage(
        ssim=estimate([leak.ssim for leak in audit], people),
        prior=estimate([leak.ssim for leak in control], people),
        excess=difference(audit, control),
        cosine=estimate(cosines, people) if len(cosines) == len(audit) else None,
        reid=reid,
        rank1=rate([r == 1 for r in ranks]) if ranks else None,
        people=gallery,
    )
