"""What an attacker is shown of an observation, and what it gives away."""

import hashlib
from dataclasses import dataclass, replace

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.core.capture import Secret
from fedaudit.core.observation import Observation
from fedaudit.core.trial import ImageScore


@dataclass(frozen=True)
class Exposure:
    """Part of what was shared and known, as an attacker is shown it.

    Attributes:
        only: Names of shared things or parameters, as `expose` takes them;
            None is everything.
        labels: Whether the labels are known: as the scenario's threat model says (None), yes, no.
    """

    only: tuple[str, ...] | None
    labels: bool | None = None

    @property
    def key(self) -> str:
        """The same for the same things in another order."""
        names = "*" if self.only is None else ",".join(sorted(self.only))
        return f"{hashlib.sha256(names.encode()).hexdigest()[:16]}-{self.labels}"

    def of(self, seen: Observation, secret: Secret) -> Observation:
        """The observation cut down to this."""
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
        known = [i.cosine for i in self.images if i.cosine is not None]
        return sum(known) / len(known) if known else None

    @property
    def people(self) -> str:
        """Whom the target shows: targets of the same people are one observation to an interval."""
        return " ".join(sorted({i.person for i in self.images}))
