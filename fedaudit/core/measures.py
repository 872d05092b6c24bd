"""Numbers with their intervals, and what a trained federation is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedaudit.core.claims import Claim


@dataclass(frozen=True)
class Rate:
    """`hits` of `n`, with an exact (Clopper–Pearson) two-sided 95 % interval.

    Attributes:
        unit: What is counted, in the plural. Of attacks the independent units: "people", or
            "updates" of several people each (`fedaudit.stats.units`).
    """

    hits: int
    n: int
    value: float
    low: float
    high: float
    unit: str = "people"


ALONE = "one alone has no interval"
"""Method of a mean of one unit, whose low and high are bounds of what is possible, if any."""


@dataclass(frozen=True)
class Estimate:
    """A mean or a paired difference with its 95 % interval; `method` says which interval."""

    value: float
    low: float
    high: float
    n: int
    method: str

    @property
    def has_interval(self) -> bool:
        """Whether low and high say how sure the value is."""
        return self.method != ALONE


@dataclass(frozen=True)
class IdentityTest:
    """Whether what was rebuilt says who it was: the exact randomization test on identity.

    Attributes:
        p_value: Share of all assignments of candidates to places that fit the reconstructions at
            least as well as the true one. Small: the updates say something of who it was.
        statistic: Sum over the people of 1 / √rank among the candidates; their number where
            everybody comes first.
        people: Audited people, one place each, whatever their photos, updates and seeds: the
            independent units of the test.
        updates: That they were behind.
        candidates: Who could have stood at these places.
        smallest: Smallest p-value that so many people, candidates and draws can give; of a row of
            a comparison corrected like `adjusted`, by what the other rows gave. Above 0.05 the
            test cannot demonstrate a leak, whatever comes back.
        exact: All assignments were tried; else some at random, with the true one among them.
        beside: What beside the updates may say who stands where, in words ("the audited model was
            trained on these people"); "" for nothing. Then, and where the prior-only control says
            who it was, a leak is what exceeds that control.
        over_control: p-value of the paired test that attack and control might change sides
            (`fedaudit.stats.exchange`); None without a control.
        guarded: Whether `over_control` counts: of it and `p_value` the larger is the row's.
        adjusted: The row's p-value, corrected for everything that the study tests
            (`fedaudit.stats.intervals.holm`); None where it is no row of a comparison, as of a
            control.
    """

    p_value: float
    statistic: float
    people: int
    updates: int
    candidates: int
    smallest: float
    exact: bool
    adjusted: float | None = None
    beside: str = ""
    over_control: float | None = None
    guarded: bool = False

    @property
    def of_update(self) -> float:
        """p-value of "the updates say nothing of who it was that nothing else says"."""
        if not self.guarded:
            return self.p_value
        return 1.0 if self.over_control is None else max(self.p_value, self.over_control)


@dataclass(frozen=True)
class Utility:
    """What the defended federation is still worth on people it never saw.

    Attributes:
        accuracy: Balanced verification accuracy on pairs of held-out people, at thresholds that
            other people set; 0.5 is chance. Its interval is over people and trainings.
        untrained: The same for the fresh network: what training adds to.
        gain: accuracy − untrained, paired; a defense is of no use where its low end is not above 0.
        accuracies: By training (seed) and person, which pairs two defenses.
        untrained_accuracies: The same for the fresh networks.
        tar_at_far: TAR at the FAR named in the key ("1e-2").
        central: What one place that has everybody's photos reaches with as many steps.
        rounds, seconds, bytes_per_client_round: Cost of a training; bytes both ways.
        training_claims: Privacy guarantees of all rounds of the training, of the client that has
            the weakest.
        step_seconds, plain_step_seconds: Median CPU seconds of one client's round with the defense
            and without, by turns in one process.
        bytes_sent, plain_bytes_sent: Of what one client sends in a round, with the defense (in the
            encoding that it names) and without.
    """

    accuracy: Estimate
    untrained: Estimate
    gain: Estimate
    accuracies: tuple[tuple[float, ...], ...]
    untrained_accuracies: tuple[tuple[float, ...], ...]
    tar_at_far: Mapping[str, float]
    auc: float
    pairs: int
    rounds: int
    seconds: float
    bytes_per_client_round: int
    central: Estimate | None = None
    training_claims: tuple[Claim, ...] = ()
    step_seconds: float | None = None
    plain_step_seconds: float | None = None
    bytes_sent: int | None = None
    plain_bytes_sent: int | None = None

    @property
    def helps(self) -> bool:
        """Whether training under the defense is shown to beat not training at all."""
        return self.gain.low > 0

    @property
    def overhead(self) -> float | None:
        """A client's seconds with the defense over those without; None where not measured."""
        if not self.step_seconds or not self.plain_step_seconds:
            return None
        return self.step_seconds / self.plain_step_seconds


@dataclass(frozen=True)
class MetricFacts:
    """What a registered metric of images says of itself: all that whoever shows it needs.

    Attributes:
        name: As registered; its key among the metrics of a trial.
        title: As printed.
        higher_is_better: Whether a higher value means more alike; better for the attacker, that is.
        unit: "" for none.
        low, high: Its range; None where it is not bounded.
        digits: Decimals to print.
    """

    name: str
    title: str
    higher_is_better: bool
    unit: str
    low: float | None
    high: float | None
    digits: int = 2

    @property
    def arrow(self) -> str:
        """Points toward less leakage."""
        return "↓" if self.higher_is_better else "↑"

    @property
    def scale(self) -> str:
        """Unit and range.

        >>> MetricFacts("ssim", "SSIM", True, "", -1, 1).scale
        'no unit, −1–1'
        >>> MetricFacts("lpips", "LPIPS", False, "", 0, None).scale
        'no unit, 0 and up'
        """
        bounds = (self.low, self.high)
        low, high = ("" if b is None else f"{b:g}".replace("-", "−") for b in bounds)
        span = {(True, True): f"{low}–{high}", (True, False): f"{low} and up"}
        words = span.get((bool(low), bool(high)), f"up to {high}" if high else "any")
        return f"{self.unit or 'no unit'}, {words}"


Evidence = Literal["none", "redacted", "full"]
