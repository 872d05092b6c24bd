"""What an attacker is shown of an observation, what it gives away, and means over targets."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.core.capture import Secret
from fedaudit.core.measures import Estimate
from fedaudit.core.observation import Observation
from fedaudit.core.trial import ImageScore
from fedaudit.reports.explanation import Leakage
from fedaudit.stats.intervals import rate
from fedaudit.why.shapley import interval

METHOD = "Student's t over targets"


@dataclass(frozen=True)
class Cut:
    """Part of what was shared and known: all that an attacker is shown.

    Attributes:
        only: Names of shared things or parameters, as `expose` takes them;
            None is everything.
        labels: Whether the labels are known: as the scenario's threat model says (None), yes, no.
    """

    only: tuple[str, ...] | None
    labels: bool | None = None

    @property
    def key(self) -> str:
        """A key that is the same whatever the order in which the parts are listed."""
        names = "*" if self.only is None else ",".join(sorted(self.only))
        return f"{hashlib.sha256(names.encode()).hexdigest()[:16]}-{self.labels}"

    def of(self, seen: Observation, secret: Secret) -> Observation:
        """The observation cut down to this part."""
        cut = seen if self.only is None else expose(seen, self.only)
        if self.labels is None:
            return cut
        # The fact is granted here as a threat model would grant it, before any attack runs.
        return replace(cut, labels=secret.labels if self.labels else None)


@dataclass(frozen=True)
class Leak:
    """Scores of one attacked observation.

    Attributes:
        images: One score an image of the target.
        attack: Whose reconstruction was scored: the best by its own objective.
        objective: What it reached; NaN becomes None.
    """

    images: tuple[ImageScore, ...]
    attack: str
    objective: float | None

    @property
    def ssim(self) -> float:
        """Mean over the images."""
        return sum(i.metrics.get("ssim", 0.0) for i in self.images) / len(self.images)

    @property
    def cosine(self) -> float | None:
        """Mean identity cosine."""
        cosines = [i.cosine for i in self.images if i.cosine is not None]
        return sum(cosines) / len(cosines) if cosines else None

    @property
    def people(self) -> str:
        """Whom the target shows: targets of the same people are one observation to an interval."""
        return " ".join(sorted({i.person for i in self.images}))


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
    """Summary of one setting over its targets; `gallery` is the number of people in the gallery."""
    people = [leak.people for leak in audit]
    images = [image for leak in audit for image in leak.images]
    cosines = [leak.cosine for leak in audit if leak.cosine is not None]
    hits = [image.reidentified for image in images if image.reidentified is not None]
    ranks = [image.rank for image in images if image.rank is not None]
    return Leakage(
        ssim=estimate([leak.ssim for leak in audit], people),
        prior=estimate([leak.ssim for leak in control], people),
        excess=difference(audit, control),
        cosine=estimate(cosines, people) if len(cosines) == len(audit) else None,
        reid=rate(hits) if hits else None,
        rank1=rate([r == 1 for r in ranks]) if ranks else None,
        people=gallery,
    )
