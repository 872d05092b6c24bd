"""What was measured of a defense under an attack: rates, distances, effort, other judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedaudit.core.measures import Estimate, IdentityTest, Rate
from fedaudit.core.reconstruction import SearchedBy
from fedaudit.scoring.copies import NO_CALIBRATION, CopyCalibration

FOREIGN = 0.1
"""Of updates from which the prior alone rebuilds somebody else who is audited. By the FMR, each of
30 others is matched in one of 1,000: 3 % of updates."""


@dataclass(frozen=True)
class Worst:
    """The reconstruction with the highest identity cosine, and where its picture is."""

    cosine: float
    cell: str
    image: int


@dataclass(frozen=True)
class Explained:
    """How well reconstructions explain recorded updates: mean cosines, 1 is all.

    Attributes:
        update: Between an update and the one that a client would have made of the reconstruction.
        other: The same against another client's update.
        prior: Of what was rebuilt from an invented person's update.
        noise: Of random images.
    """

    update: Estimate
    other: Estimate | None
    prior: Estimate | None
    noise: Estimate | None

    @property
    def beyond_controls(self) -> bool:
        """Whether an attack explains the updates that it attacked better than controls do."""
        highest = [control.high for control in (self.other, self.prior, self.noise) if control]
        return bool(highest) and self.update.low > max(highest)


@dataclass(frozen=True)
class Effort:
    """How much an attack was given on a target, and whether more of it would have helped.

    Attributes:
        steps, evaluations: Medians over targets: optimization steps, and gradients of single
            images.
        restarts: Independent starts of the search.
        closed_form: The images follow by arithmetic: there is no search.
        tested: Targets that were attacked again with half of the steps; 0 of an attack that does
            not say what it is with half of them (convergence is not reported).
        converged: On how many of those the second half of the steps gained next to nothing.
        gain: The most that it gained, as a share of the objective (`reports.effort.gain_of`).
        ways: By what images were searched for (`Reconstruction.searched_by`), and how many were
            re-identified of those; None where that was not tested.
    """

    steps: int
    evaluations: int
    restarts: int
    closed_form: bool
    tested: int
    converged: int
    gain: float | None
    ways: Mapping[SearchedBy, Rate | None] = field(default_factory=dict)

    @property
    def enough(self) -> bool:
        """Whether a longer search would find no more; not known counts as no."""
        return self.closed_form or (self.tested > 0 and self.converged == self.tested)

    @property
    def words(self) -> str:
        """What a reader is told of it: "converged (2 of 2)"."""
        if self.closed_form:
            return "exact, no search"
        if not self.tested:
            return "convergence not reported"
        word = "converged" if self.enough else "not converged"
        return f"{word} ({self.converged} of {self.tested})"


@dataclass(frozen=True)
class SecondOpinion:
    """What a judge of identity beside the first says of a row; it decides nothing.

    Attributes:
        reid, prior: As in `Measurement`, by this judge.
        disagreements: Of how many of the `images` it says otherwise than the first.
    """

    reid: Rate
    prior: Rate | None
    disagreements: int
    images: int


@dataclass(frozen=True)
class Measurement:
    """What one attack recovered under one defense.

    Attributes:
        of: What the attack rebuilds: "photos" of a batch, or one face for each of several "people".
        attacked: Names of the shared things that the attack attacks together.
        metrics: Image metrics by name; without those that were not measured on all images.
        seconds: Median CPU seconds a target.
        labels: Mean share of the label multiset that was recovered.
        reid: Re-identification at the calibrated FMR (headline).
        prior: The same for the prior-only control (same attack, an invented person's update).
        prior_ssim: SSIM of that control.
        originals: The same of the audited originals themselves, which no attack can beat; None
            where they were not tried.
        excess: reid − prior, paired by target.
        identity: Whether what was rebuilt says who it was: the exact randomization test, with its
            p-value `adjusted` for all rows of the study. `identity.adjusted <= 0.05` demonstrates
            a leak, with as few targets as honest; the rate and its interval say how much leaks.
            `identity.smallest > 0.05`: so few people cannot demonstrate one. None: not available,
            which is no evidence in either direction (no gallery, or a run older than the test).
        prior_identity: The same test on the prior-only control, not adjusted: a small p-value says
            that model and prior tell who it was without this update.
        searched: Nobody knows whom the updates are of: `reid` and `prior` count reconstructions
            that match *somebody* in the gallery, `worst` is to the nearest person.
        chance: Of photos, how often a search of the whole gallery matches a stranger.
        explained: Of recorded updates.
        copies, prior_copies: Where the photos are known: how many of the reconstructions are that
            very photo, of the attack and of the prior-only control.
        copy_calibration: What counted as a copy, and how often another photo would have.
        foreign: Of how many updates the prior-only control rebuilt an audited person who was not
            in it: what a prior does that was trained on the audited people.
        effort: What the attack was given. A clean word needs `effort.enough`: of an attack that
            would have found more in more steps, or does not say, nothing clean can be said.
        others: What other judges say, by label.
    """

    n_targets: int
    n_people: int
    of: Literal["photos", "people"]
    attacked: tuple[str, ...]
    metrics: Mapping[str, Estimate]
    seconds: float
    labels: float | None = None
    reid: Rate | None = None
    prior: Rate | None = None
    prior_ssim: Estimate | None = None
    excess: Estimate | None = None
    rank1: Rate | None = None
    originals: Rate | None = None
    worst: Worst | None = None
    identity: IdentityTest | None = None
    prior_identity: IdentityTest | None = None
    searched: bool = False
    chance: Rate | None = None
    explained: Explained | None = None
    copies: Rate | None = None
    prior_copies: Rate | None = None
    copy_calibration: CopyCalibration = NO_CALIBRATION
    foreign: Rate | None = None
    effort: Effort | None = None
    others: Mapping[str, SecondOpinion] = field(default_factory=dict)

    @property
    def copied(self) -> bool:
        """Whether copies demonstrate a leak by themselves, one being enough.

        The calibration must allow it, and the control must make none: a prior that knows the
        audited photos copies them without any update, of the right people or of others.
        """
        own, control = self.copies, self.prior_copies
        has_copies = own is not None and own.hits > 0 and control is not None and not control.hits
        knows = self.foreign is not None and self.foreign.low > FOREIGN
        return has_copies and not knows and self.copy_calibration.proves

    @property
    def ssim(self) -> Estimate | None:
        """Structural similarity, by which attacks that re-identify alike are told apart."""
        return self.metrics.get("ssim")

    @property
    def p_holm(self) -> float | None:
        """Holm-adjusted p-value of the identity test over all rows; None: not available."""
        return self.identity.adjusted if self.identity else None
