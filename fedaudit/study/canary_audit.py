"""ε as canaries show it, beside ε as it is claimed, for each defense of a study that claims one."""

from collections.abc import Callable
from dataclasses import replace

from pydantic import TypeAdapter

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.errors import UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.federation.simulation import Simulation
from fedaudit.study.canary_diagnosis import examine_causes
from fedaudit.study.canary_result import CanaryAudit, ShownLine
from fedaudit.study.canary_training import Seen, require_method, train_with_canaries
from fedaudit.study.jobs import FederationJob
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.shown_epsilon import require_enough, shown_epsilon

UNITS = ("image", "client")
"""For which a claim may be, the nearest to a canary first."""


def run_canaries(study: Study, job: FederationJob, folder: RunFolder) -> None:
    """The work of a job: one training with canaries; what refuses them is kept with the reason."""
    scenario = study.scenario(job.scenario)
    defense = next(one for one in scenario.defenses if one.label == job.defense)
    one = replace(study, scenarios=(replace(scenario, defenses=(defense,)),))
    line = ShownLine(job.scenario, job.defense)
    try:
        (audit,) = audit_with_canaries(one, study.canaries, seed=study.seeds[0])
        line = replace(line, audit=audit)
    except UsageError as error:
        line = replace(line, reason=str(error))
    kept: TypeAdapter[ShownLine] = TypeAdapter(ShownLine)
    folder.save_measurement(job.key, kept.dump_python(line, mode="json"))


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
