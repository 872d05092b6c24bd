"""ε as canaries show it, beside ε as it is claimed, for each defense of a study that claims one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pydantic import TypeAdapter

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.claims import Claim
from fedaudit.core.errors import UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.federation.simulation import Simulation
from fedaudit.stats.gaussian_dp import epsilon_of_mu
from fedaudit.stats.one_shot_estimate import epsilon_of_cosines
from fedaudit.study.canary_diagnosis import examine_causes
from fedaudit.study.canary_result import CanaryAudit, ShownLine
from fedaudit.study.canary_training import Seen, Unit, require_method, train_with_canaries
from fedaudit.study.client_canaries import train_with_canary_clients
from fedaudit.study.defense_claims import defense_verdicts
from fedaudit.study.jobs import FederationJob
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.shown_epsilon import require_enough, shown_epsilon

UNITS = ("image", "client")
"""For which a claim may be, the nearest to a canary first."""


@dataclass(frozen=True)
class _Job:
    """A federation to be trained, and how."""

    scenario: str
    defense: str
    simulation: Simulation
    power: str
    delta: float
    canaries: int
    unit: Unit
    seed: int
    seen: Seen


def run_canaries(study: Study, job: FederationJob, folder: RunFolder) -> None:
    """The work of a job: one training with canaries; what refuses them is kept with the reason."""
    scenario = study.scenario(job.scenario)
    defense = next(one for one in scenario.defenses if one.label == job.defense)
    one = replace(study, scenarios=(replace(scenario, defenses=(defense,)),))
    line = ShownLine(job.scenario, job.defense)
    try:
        whole = _units(one, one.scenarios[0], defense) == {"client"}
        unit: Unit = "client" if whole else "image"
        (audit,) = audit_with_canaries(one, study.canaries, unit=unit, seed=study.seeds[0])
        line = replace(line, audit=audit)
    except UsageError as error:
        line = replace(line, reason=str(error))
    adapter: TypeAdapter[ShownLine] = TypeAdapter(ShownLine)
    folder.save_measurement(job.key, adapter.dump_python(line, mode="json"))


def audit_with_canaries(
    study: Study,
    canaries: int,
    *,
    unit: Unit = "image",
    delta: float = 1e-5,
    seed: int = 0,
    seen: Seen = "updates",
    before: Callable[[str], None] = lambda forecast: None,
    progress: Callable[[str, int, int], None] = lambda what, round_number, rounds: None,
) -> tuple[CanaryAudit, ...]:
    """One training with canaries for each defense of each scenario.

    Args:
        study: Whose federation trains, for as many rounds as its [federation] plans.
        canaries: Of each training.
        unit: What each of them is.
        delta: Where a defense claims none.
        seed: Of coins and training.
        seen: What the attacker has.
        before: Takes what so many canaries can show, before anything trains.
        progress: Takes (scenario and defense, rounds done, rounds).

    Raises:
        UsageError: Too few canaries, δ above 1/n, a study of recorded updates, or a claim for
            something else than images or clients.
        ConfigError: Canary clients, and a defense that claims nothing for a client.
    """
    if study.recording is not None:
        raise UsageError("canaries must train: no recording holds them. Name a study to simulate.")
    for scenario in study.scenarios:
        require_method(scenario.method.name)
    jobs = []
    for scenario in study.scenarios:
        for defense in scenario.defenses:
            simulation = simulation_of(study, scenario, defense)
            epsilon = float(defense.settings.get("epsilon", "inf"))
            budget = float(defense.settings.get("delta", delta))
            units = {
                "image": min(map(len, simulation.split.photos)),
                "person": min(map(len, simulation.split.clients)),
                "client": len(simulation.split.clients),
            }
            power = require_enough(canaries, epsilon, budget, units[unit], unit)
            _require_unit(study, scenario, defense)
            before(f"{scenario.name}, {defense.label}: {power}")
            jobs.append(
                _Job(
                    scenario.name, defense.label, simulation, power, budget, canaries, unit, seed,
                    seen,
                )
            )  # fmt: skip
    return tuple(_audit(job, progress) for job in jobs)


def _require_unit(study: Study, scenario: Scenario, defense: Choice) -> None:
    """Refuse a claim over other data than canaries are, before anything trains with them."""
    units = _units(study, scenario, defense)
    if units and not units & set(UNITS):
        raise UsageError(
            f"{defense.label} claims its ε for one {' or '.join(sorted(units))}, and canaries are "
            "images or clients: what they show says nothing of such a claim. Leave it out."
        )


def _units(study: Study, scenario: Scenario, defense: Choice) -> set[str]:
    """For one what a defense claims its ε."""
    alone = replace(study, scenarios=(replace(scenario, defenses=(defense,)),))
    (verdict,) = defense_verdicts(alone)
    return {claim.unit for claim in verdict.over_rounds}


def _audit(job: _Job, progress: Callable[[str, int, int], None]) -> CanaryAudit:
    def done(number: int, rounds: int) -> None:
        progress(f"{job.scenario}, {job.defense}", number, rounds)

    if job.unit == "client":
        return _audit_clients(job, done)
    photos = 1 if job.unit == "image" else _photos_of_a_person(job.simulation)
    training = train_with_canaries(
        job.simulation, job.canaries, photos=photos, seed=job.seed, seen=job.seen, progress=done
    )
    whole = [one for one in training.claims if one.unit in UNITS and not one.broken]
    # What holds for all data of a client holds for one image of it, and for one person.
    own = min(whole, key=lambda one: UNITS.index(one.unit), default=None)
    claim = own if own is None or job.unit == "image" else for_a_person(own, photos)
    epsilon = shown_epsilon(training.scores, training.inside, delta=own.delta if own else job.delta)
    audit = CanaryAudit(
        job.scenario, job.defense, claim, epsilon, job.power, unit=job.unit, photos=photos
    )
    if own is None or job.seen == "model":  # causes are read off updates
        return audit
    return replace(audit, causes=examine_causes(training, own))


def _audit_clients(job: _Job, progress: Callable[[int, int], None]) -> CanaryAudit:
    """Bounds from the coins of canary clients, and an estimate from their cosines."""
    trained = train_with_canary_clients(
        job.simulation, job.canaries, seed=job.seed, seen=job.seen, progress=progress
    )
    claim, inside = trained.claim, trained.inside
    cosines = trained.cosines.double().numpy()
    present, absent = cosines[inside.numpy()], 1 / math.sqrt(trained.numbers)
    opposite = claim.neighbors == "replace one"  # those of tails point the other way
    if opposite:
        present = np.where(inside.numpy(), cosines, -cosines)
    return CanaryAudit(
        job.scenario,
        job.defense,
        claim,
        shown_epsilon(trained.cosines, inside, delta=claim.delta),
        job.power,
        unit="client",
        photos=0,
        estimate=epsilon_of_cosines(
            present,
            None if opposite else absent,
            delta=claim.delta,
            rng=np.random.default_rng(job.seed),
        ),
    )


def for_a_person(claim: Claim, photos: int) -> Claim | None:
    """What a claim promises to a person of so many photos; None where that cannot be worked out.

    Gaussian noise that hides one photo in each step hides k of them as noise of a k-th would; under
    sampling no such rule is exact. A claim for a client holds for each person of it.
    """
    plain = all(one.law == "gaussian" and one.sampling == 1 for one in claim.spendings)
    if claim.unit == "client" or photos == 1:
        return claim
    if not plain or not claim.spendings:
        return None
    mu = photos * math.sqrt(sum(one.runs / one.noise**2 for one in claim.spendings))
    return replace(
        claim,
        epsilon=epsilon_of_mu(mu, claim.delta),
        unit="person",
        accountant=f"Gaussian DP, exact, of {photos} photos",
    )


def _photos_of_a_person(simulation: Simulation) -> int:
    """How many a person has at a client, about."""
    people = sum(map(len, simulation.split.clients))
    return max(1, round(sum(map(len, simulation.split.photos)) / max(1, people)))
