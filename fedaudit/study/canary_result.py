"""Result of an audit with canaries: the ε that is claimed and the ε that they show."""

from dataclasses import dataclass

from fedaudit.core.claims import Claim
from fedaudit.core.measures import Estimate
from fedaudit.study.shown_epsilon import ShownEpsilon


@dataclass(frozen=True)
class Cause:
    """A likely fault of the implementation that explains what the canaries show.

    Attributes:
        name: Of the fault.
        present: Whether the numbers are those of this fault.
        evidence: What was measured, beside what was expected.
    """

    name: str
    present: bool
    evidence: str


@dataclass(frozen=True)
class CanaryAudit:
    """Claimed and shown ε of one defense in one scenario.

    Attributes:
        scenario, defense: By their labels in the study.
        claim: For what a canary is (or for a client, which covers its images) over all rounds, of
            the run that canaries took part in; None where the defense claims none.
        shown: What the canaries show.
        power: What so many canaries can show at most, as said before the run.
        unit: What a canary was: an image, all photos of a person, or a whole client.
        photos: Of each canary; 0 of clients.
        estimate: ε as the cosines of canary clients amount to it (Andrew et al.): an estimate, of
            which nothing follows; None of other canaries.
        causes: Faults, each held against what the canaries did; () of a mechanism whose canaries
            are not understood.
    """

    scenario: str
    defense: str
    claim: Claim | None
    shown: ShownEpsilon
    power: str
    causes: tuple[Cause, ...] = ()
    unit: str = "image"
    photos: int = 1
    estimate: Estimate | None = None

    @property
    def exceeded(self) -> str:
        """The bound by which more ε is shown than claimed; "" where none does.

        The Gaussian model is that of the mechanism itself where its accountant counts Gaussian
        noise.
        """
        if self.claim is None:
            return ""
        if self.shown.any_mechanism > self.claim.epsilon:
            return "whatever the mechanism"
        gaussian = {spending.law for spending in self.claim.spendings} == {"gaussian"}
        if gaussian and max(self.shown.gaussian, self.shown.f_dp) > self.claim.epsilon:
            return "under the Gaussian model"
        return ""

    @property
    def faulty(self) -> bool:
        """Whether the implementation leaks more than it claims."""
        return bool(self.exceeded) or any(cause.present for cause in self.causes)


@dataclass(frozen=True)
class ShownLine:
    """What a study's canaries show of one defense.

    Attributes:
        audit: None where there is nothing to say.
        reason: Why not; "" where there is.
    """

    scenario: str
    defense: str
    audit: CanaryAudit | None = None
    reason: str = ""
