"""ε as canaries show it, beside ε as it is claimed, for each defense of a study that claims one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.claims import Claim
from fedaudit.core.errors import UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.federation.simulation import Simulation
from fedaudit.study.canary_diagnosis import Cause, examine_causes
from fedaudit.study.canary_training import Seen, require_method, train_with_canaries
from fedaudit.study.shown_epsilon import ShownEpsilon, require_enough, shown_epsilon

UNITS = ("image", "client")
"""For which a claim may be, the nearest to a canary first."""


@dataclass(frozen=True)
class CanaryAudit:
    """Claimed and shown.

    Attributes:
        scenario, defense: By their labels in the study.
        claim: For one image (or for a client, which covers its images) over all rounds, of the run
            that canaries took part in; None where the defense claims none.
        shown: What the canaries show.
        power: What so many canaries can show at most, as said before the run.
        causes: Faults, each held against what the canaries did; () of a mechanism whose canaries
            are not understood.
    """

    scenario: str
    defense: str
    claim: Claim | None
    shown: ShownEpsilon
    power: str
    causes: tuple[Cause, ...] = ()

    @property
    def exceeded(self) -> str:
        """By which bound more is shown than claimed; "" where none does.

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
        """Whether the implementation does not do what it claims."""
        return bool(self.exceeded) or any(cause.present for cause in self.causes)


def audit_with_canaries(
    study: Study,
    canaries: int,
    *,
    delta: float = 1e-5,
    seed: int = 0,
    seen: Seen = "updates",
    before: Callable[[str], None] = lambda said: None,
    progress: Callable[[str, int, int], None] = lambda what, done, rounds: None,
) -> tuple[CanaryAudit, ...]:
    """One training with canaries for each defense of each scenario.

    Args:
        study: Whose federation trains, for as many rounds as its [federation] plans.
        canaries: Of each training.
        delta: Where a defense claims none.
        seed: Of coins and training.
        seen: What the attacker has.
        before: Takes what so many canaries can show, before anything trains.
        progress: Takes (scenario and defense, rounds done, rounds).

    Raises:
        UsageError: Too few canaries, δ above 1/n, or a study of recorded updates.
    """
    if study.recording is not None:
        raise UsageError("canaries must train: no recording holds them. Name a study to simulate.")
    for scenario in study.scenarios:
        require_method(scenario.method.name)
    jobs = []
    for scenario in study.scenarios:
        for defense in scenario.defenses:
            simulation = simulation_of(study, scenario, defense)
            claimed = float(defense.settings.get("epsilon", "inf"))
            least = min(len(photos) for photos in simulation.split.photos)
            stated = float(defense.settings.get("delta", delta))
            said = require_enough(canaries, claimed, stated, least)
            before(f"{scenario.name}, {defense.label}: {said}")
            jobs.append((scenario, defense, simulation, said, stated))
    return tuple(
        _audit(scenario, defense, simulation, said, stated, canaries, seed, seen, progress)
        for scenario, defense, simulation, said, stated in jobs
    )


def _audit(
    scenario: Scenario,
    defense: Choice,
    simulation: Simulation,
    power: str,
    delta: float,
    canaries: int,
    seed: int,
    seen: Seen,
    progress: Callable[[str, int, int], None],
) -> CanaryAudit:
    named = f"{scenario.name}, {defense.label}"
    trained = train_with_canaries(
        simulation,
        canaries,
        seed=seed,
        seen=seen,
        progress=lambda done, rounds: progress(named, done, rounds),
    )
    whole = [one for one in trained.claims if one.unit in UNITS and not one.broken]
    # What holds for all data of a client holds for one image of it.
    claim = min(whole, key=lambda one: UNITS.index(one.unit), default=None)
    shown = shown_epsilon(trained.scores, trained.inside, delta=claim.delta if claim else delta)
    found = CanaryAudit(scenario.name, defense.label, claim, shown, power)
    if claim is None or seen == "model":  # causes are read off updates
        return found
    return replace(found, causes=examine_causes(trained, claim))
