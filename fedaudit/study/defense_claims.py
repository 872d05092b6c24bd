"""What the defenses of a study claim, over all rounds of the federation that it plans."""

from dataclasses import replace

from fedaudit.captures.claims.claim_verdict import ClaimVerdict, Standing
from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.claims import Gap
from fedaudit.core.client import ClientReturn
from fedaudit.core.errors import UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.defenses.composition import claims_of, over_rounds
from fedaudit.study.claim_holes import repeats, selection_holes


def defense_verdicts(study: Study) -> tuple[ClaimVerdict, ...]:
    """A verdict for each defense of each scenario: one client's round is run, and composed.

    The client is the one with the fewest photos, whose claim is the weakest.

    Raises:
        UsageError: The study's updates are recorded: its capture says what is claimed.
    """
    if study.recording is not None:
        raise UsageError(
            f"this study attacks a recording. Ask its capture: fedaudit dp {study.recording.path}"
        )
    return tuple(
        _verdict(study, scenario, defense)
        for scenario in study.scenarios
        for defense in scenario.defenses
    )


def _verdict(study: Study, scenario: Scenario, defense: Choice) -> ClaimVerdict:
    simulation = simulation_of(study, scenario, defense)
    federation = simulation.federation
    client = min(range(len(simulation.split.photos)), key=lambda k: len(simulation.split.photos[k]))
    state = simulation.fresh()

    def a_round(number: int) -> ClientReturn:
        draws = generator_for("claims", scenario.name, defense.label, number)
        photos = simulation.labelled(client)
        return simulation.step(state, client, photos, federation.training, draws)

    reply = a_round(1)
    claims = claims_of(reply)
    over = over_rounds([claims] * federation.rounds)
    settings = ", ".join(f"{name} = {value}" for name, value in defense.settings.items())
    title = defense.name if defense.label == defense.name else f"{defense.label}: {defense.name}"
    verdict = ClaimVerdict(
        mechanism=defense.name,
        stated=f"{title}({settings})" if settings else title,
        place=f"scenario {scenario.name}",
        standing="heuristic",
        reasons=("it claims no ε: what it is worth, attacks say",),
        changes=("attack it: fedaudit run",),
    )
    holes = list(selection_holes(simulation.defense, reply))
    if not claims and holes:
        changes = ("choose clusters with noise, or claim no ε",)
        return replace(verdict, standing="contradicted", reasons=tuple(holes), changes=changes)
    if not claims:
        return verdict
    violations = [claim for claim in claims if claim.broken]
    no_noise = [claim for claim in claims if claim.epsilon == float("inf")]
    if not no_noise and repeats(reply, a_round(2)):
        holes.append("two rounds sent the same, bit by bit: the noise repeats, or is not there")
    standing: Standing = (
        "contradicted" if violations or holes else "heuristic" if no_noise else "guarantee"
    )
    gaps: tuple[Gap, ...] = tuple(dict.fromkeys(gap for claim in over for gap in claim.gaps))
    return replace(
        verdict,
        standing=standing,
        a_round=claims,
        over_rounds=over,
        reasons=(
            *(f"nothing is left that its ε covers (per {claim.unit})" for claim in violations),
            *(("no noise is added",) if no_noise else ()),
            *holes,
        ),
        missing=tuple(dict.fromkeys(name for claim in over for name in claim.missing)),
        outside=gaps,
        changes=("see docs/explanation/privacy_claims.md for what breaks a claim",)
        if violations or holes
        else (),
    )
