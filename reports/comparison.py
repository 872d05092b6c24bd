"""The lines of a comparison as data: what each attack recovered, and what each defense buys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedaudit.core.claims import Claim
from fedaudit.core.measures import Estimate, IdentityTest, Rate, Utility
from fedaudit.core.scenario import Choice, Study
from fedaudit.scoring.copies import NO_CALIBRATION, CopyCalibration

VerdictKind = Literal[
    "LEAK DEMONSTRATED",
    "TRACE OF IDENTITY",
    "NO LEAK FOUND ABOVE LIMIT",
    "INCONCLUSIVE",
    "INVALID",
    "NOT TESTED",
    "COMPARISON",
]
"""TRACE OF IDENTITY: something of who it was comes through, too little to say how much. COMPARISON
is no row's: of a study that names no deployed defense, whose headline judges none."""
LEAKING: frozenset[VerdictKind] = frozenset({"LEAK DEMONSTRATED", "TRACE OF IDENTITY"})
"""Verdicts of what was shown to come through."""
GRAVITY: tuple[VerdictKind, ...] = (
    "LEAK DEMONSTRATED",
    "INVALID",
    "TRACE OF IDENTITY",
    "INCONCLUSIVE",
    "NO LEAK FOUND ABOVE LIMIT",
    "NOT TESTED",
)
"""Verdicts, gravest first."""
ADAPTED = frozenset({"known", "estimated", "none needed"})
"""Words of attacks that took the defense into account, or had nothing to take into account."""
Reason = Literal[
    "",
    "too few units",
    "data too small",
    "no prior-only control",
    "no undefended control",
    "no power",
    "blind attack",
    "unconverged",
    "prior overlap",
    "source not shown",
    "not explained",
    "not run",
]
"""Why a row or a study is inconclusive, for programs; the sentence says it to people."""
FOREIGN = 0.1
"""Of updates from which the prior alone rebuilds somebody else who is audited. By the FMR, each of
30 others is matched in one of 1,000: 3 % of updates."""
Severity = Literal["critical", "high", "medium", "low", "none"]
Role = Literal["deployed", "alternative", "control"]
"""What a defense is in a study: what the verdict judges, another choice, or none at all."""


def role_of(study: Study, defense: Choice) -> Role:
    """What a defense of the study is in it."""
    if defense.label in study.audited:
        return "deployed"
    return "control" if defense.name == "none" else "alternative"


@dataclass(frozen=True)
class Verdict:
    """What the statistics allow one to say.

    Attributes:
        sentence: One plain sentence with the number, its interval and n.
        severity: By the lower bound of the re-identification rate.
        targets_needed: For INCONCLUSIVE: independent units that would settle it if none of them is
            re-identified; None where the data set cannot give so many, or more would not help.
        reason: Why it is INCONCLUSIVE; "" of other verdicts.
    """

    kind: VerdictKind
    sentence: str
    severity: Severity = "none"
    targets_needed: int | None = None
    reason: Reason = ""


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
    """

    steps: int
    evaluations: int
    restarts: int
    closed_form: bool
    tested: int
    converged: int
    gain: float | None

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
        made = own is not None and own.hits > 0 and control is not None and not control.hits
        knows = self.foreign is not None and self.foreign.low > FOREIGN
        return made and not knows and self.copy_calibration.proves

    @property
    def ssim(self) -> Estimate | None:
        """Structural similarity, by which attacks that re-identify alike are told apart."""
        return self.metrics.get("ssim")

    @property
    def p_holm(self) -> float | None:
        """Of the test on identity, adjusted for all rows of the study; None: not available."""
        return self.identity.adjusted if self.identity else None


@dataclass(frozen=True)
class Row:
    """One line of the comparison: scenario × defense × attack.

    Attributes:
        adaptive: Whether the attack took the defense into account, as in `Reconstruction`, on most
            targets.
        measurement: None where the attack attacks nothing of what was shared: nothing was tested.
        model_state: What is known of a recorded model; "" of a simulated one, which `round` tells.
        role: Of the defense. Verdict, severity, findings and gate judge the deployed rows.
        primary: The one row of the study that is tested first (`identity_tests.primary`).
        undefended: The defense is none at all: the row that shows what the attack can do.
    """

    scenario: str
    network: str
    method: str
    round: int
    batch_size: int
    defense: str
    attack: str
    threat_model: str
    adaptive: str
    measurement: Measurement | None
    claims: tuple[Claim, ...]
    utility: Utility | None
    verdict: Verdict
    model_state: str = ""
    role: Role = "deployed"
    primary: bool = False
    undefended: bool = False

    @property
    def reid(self) -> Rate | None:
        """The headline metric; None where it was not tested."""
        return self.measurement.reid if self.measurement else None

    @property
    def worst_cosine(self) -> float | None:
        """Highest identity cosine."""
        worst = self.measurement and self.measurement.worst
        return worst.cosine if worst else None

    @property
    def strength(self) -> tuple[float, float, float]:
        """Orders rows by what they show: lower bounds of rate and excess, then SSIM."""
        m = self.measurement
        if m is None:
            return 0.0, -1.0, -1.0
        low = m.reid.low if m.reid else 0.0
        return low, m.excess.low if m.excess else -1.0, m.ssim.value if m.ssim else -1.0


def strongest(rows: Sequence[Row]) -> Row | None:
    """The row whose attack re-identifies most.

    Among equals one that took the defense into account, then the one with the higher SSIM.
    """
    tested = [
        (row.reid.value, row.adaptive in ADAPTED, row.strength[2], row) for row in rows if row.reid
    ]
    return max(tested, key=lambda entry: entry[:3])[3] if tested else None


def met_by_adaptive(rows: Sequence[Row]) -> bool:
    """Whether an attack that took the defense into account was measured."""
    return any(row.adaptive in ADAPTED for row in rows if row.reid)


@dataclass(frozen=True)
class DefenseLine:
    """What one defense buys in one scenario, under the strongest attack that met it.

    Attributes:
        name, settings: Of the defense; `defense` is its label in the study.
        attack: The one that re-identified most; None where none was run.
        adaptive: Whether that attack took the defense into account, as in `Row`.
        measurement: What that attack recovered.
        met_by_adaptive: Whether any attack that was run did.
        verdict: The gravest of its rows.
        reid_blind, reid_adapted: Of the strongest attack that did not take the defense into
            account, and of the strongest that did.
        worst_cosine: Over all attacks.
        reduction: Undefended − defended rate, paired by photo, both under their strongest attack.
        p_value, p_holm: One-sided, reduction > 0; Holm over all lines of the study.
        accuracy_lost: Verification accuracy of the undefended federation less this one's, by person
            and training; a share.
        dominated_by: Label of a defense that is no less useful and leaks no more, by estimates,
            and is better in one of the two by an interval.
        role: As in `Row`.
    """

    scenario: str
    defense: str
    name: str
    settings: Mapping[str, Any]
    attack: str | None
    adaptive: str | None
    measurement: Measurement | None
    met_by_adaptive: bool
    verdict: VerdictKind
    reid_blind: Rate | None
    reid_adapted: Rate | None
    worst_cosine: float | None
    utility: Utility | None
    accuracy_lost: Estimate | None
    claims: tuple[Claim, ...]
    dominated_by: str | None
    reduction: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None
    role: Role = "deployed"

    @property
    def reid(self) -> Rate | None:
        """Under the strongest attack."""
        return self.measurement.reid if self.measurement else None


@dataclass(frozen=True)
class Exposure:
    """One cell of the exposure map: a thing that was sent × an attack on it.

    Attributes:
        scenario, network, method, round, defense: Where it was sent.
        artifact: Name of the thing ("update", "class_embeddings"; the second update of a client is
            "update#2"), with the prefixes of its parameters where the attacker was shown some only.
        summary, bytes: What it holds, in numbers; of one target's.
        sent: In how many of the `targets` it was there.
        readers: Registered attacks that read such a thing, when the study was run.
        attack: Who attacks it; None where no attack of the study attacks it: nothing was tested.
        together: Everything that the attack attacks or uses at once; the result is of all of them.
        measurement: Of the row scenario × defense × attack; None where not tested.
        note: Why there is no result, or what else a reader must know.
        model_state: As in `Row`.
    """

    scenario: str
    network: str
    method: str
    round: int
    defense: str
    artifact: str
    summary: str
    bytes: int
    sent: int
    targets: int
    readers: tuple[str, ...]
    attack: str | None
    together: tuple[str, ...]
    verdict: VerdictKind
    measurement: Measurement | None
    note: str
    model_state: str = ""

    @property
    def reid(self) -> Rate | None:
        """The headline metric; None where it was not tested."""
        return self.measurement.reid if self.measurement else None
