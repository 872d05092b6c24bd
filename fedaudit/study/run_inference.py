"""The work of an inference job: a federation trains, and its server watches who is in it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from fedaudit.attacks.membership.client_scores import score
from fedaudit.attacks.membership.property_regression import property_shares
from fedaudit.attacks.membership.round_measurements import Measurements, join, measure_round
from fedaudit.attacks.membership.shadow_clients import Auxiliary, train_shadow_clients
from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.client import ClientReturn
from fedaudit.core.errors import AttackError
from fedaudit.core.inference import Membership
from fedaudit.core.observation import Observation
from fedaudit.core.scenario import Study
from fedaudit.core.seeds import generator_for
from fedaudit.federation.abilities import Aggregates
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.membership_judge import Candidate, judge_membership, outsiders_apart
from fedaudit.study.inferred_properties import auxiliary_photos, judge_properties
from fedaudit.study.jobs import FederationJob
from fedaudit.study.run_folder import RunFolder

WATCHED = 6
"""Rounds that are measured at most, evenly spaced, the last among them."""
PHOTOS = 2
"""Of a person that are candidates: of those that train, and of the others."""
PEOPLE = 150
"""Members at most, and outsiders at most."""


def run_inference(study: Study, job: FederationJob, folder: RunFolder) -> None:
    """Train, measure, judge, keep; what cannot be attacked is kept with the reason."""
    scenario = study.scenario(job.scenario)
    defense = next(one for one in scenario.defenses if one.label == job.defense)
    simulation = simulation_of(study, scenario, defense)
    folder.save_measurement(
        job.key, asdict(infer_membership(simulation, job.scenario, job.defense))
    )


def infer_membership(simulation: Simulation, scenario: str, defense: str) -> Membership:
    """Who is in which client's data, as the server of this federation infers it.

    Args:
        simulation: The federation; all of its rounds are run.
        scenario: What to call its scenario.
        defense: What to call its defense.
    """
    photos, candidates = zip(*_candidates(simulation), strict=True)
    last, clients = simulation.federation.rounds, len(simulation.split.clients)
    report = Membership(
        scenario=scenario,
        defense=defense,
        clients=clients,
        rounds=tuple(sorted({-(-last * k // WATCHED) for k in range(1, WATCHED + 1)})),
        members=len({one.person for one in candidates if one.client is not None}),
        outsiders=len({one.person for one in candidates if one.client is None}),
    )
    if why := _why_not(simulation, report):
        return replace(report, reason=why)
    auxiliary = auxiliary_photos(simulation)
    try:
        values, shares = _measure(
            simulation, photos, [one.person for one in candidates], report.rounds, auxiliary
        )
    except AttackError as error:
        return replace(report, reason=str(error))
    scores = score(values)
    generator = generator_for("shuffled membership", simulation.seed)
    first = next(iter(scores.values()))
    return replace(
        report,
        scores=judge_membership(scores, candidates, generator),
        control=outsiders_apart(first, candidates, generator),
        properties=judge_properties(simulation, auxiliary, shares),
    )


def _why_not(simulation: Simulation, report: Membership) -> str:
    """Why membership cannot be told or judged here; "" where it can."""
    method = simulation.method
    if simulation.aggregator or (isinstance(method, Aggregates) and method.secure):
        return "the server sees a sum of all clients' updates, and who sent what is hidden in it"
    if report.outsiders < 2:
        return (
            "nobody is in no client's data, against whom to judge: raise [federation] held_out, "
            "or use a set with identities"
        )
    return ""


def _candidates(simulation: Simulation) -> Iterator[tuple[int, Candidate]]:
    """Photos of the set with their truth: of members at the client that has most of theirs."""
    split, faces = simulation.split, simulation.faces
    keep = simulation.federation.photos if faces.has_identities else 1
    for person in split.people[:PEOPLE]:
        home = max(range(len(split.clients)), key=lambda k: len(split.photos_of(k, person)))
        yield from _photos_of(person, home, split.photos_of(home, person), True)
        yield from _photos_of(person, home, split.gallery.get(person, ()), False)
    outsiders = set(split.held_out[:PEOPLE])
    theirs: dict[str, list[int]] = {person: [] for person in split.held_out[:PEOPLE]}
    for photo, person in enumerate(faces.people):
        if person in outsiders:
            theirs[person].append(photo)
    for person, photos in theirs.items():
        yield from _photos_of(person, None, photos[:keep], True)
        yield from _photos_of(person, None, photos[keep:], False)


def _photos_of(
    person: str, client: int | None, photos: Sequence[int], is_member: bool
) -> Iterator[tuple[int, Candidate]]:
    for photo in photos[:PHOTOS]:
        yield photo, Candidate(person, client, is_member)


def _measure(
    simulation: Simulation,
    photos: Sequence[int],
    people: Sequence[str],
    rounds: Sequence[int],
    auxiliary: Auxiliary | None,
) -> tuple[Measurements, dict[str, Tensor]]:
    """Run all rounds, and measure these; of the others nothing is kept.

    Returns:
        What updates say of the photos, and by property the shares told, `[clients]`.
    """
    state, images, values = simulation.fresh(), simulation.images(photos), []
    training = simulation.local(simulation.federation.training)
    guesses: dict[str, list[Tensor]] = {}
    for number in range(1, rounds[-1] + 1):
        before, returns = state, dict[int, ClientReturn]()
        state, _ = simulation.train(state, range(number, number + 1), account=returns.__setitem__)
        if number not in rounds:
            continue
        seen = [
            Observation(
                model=simulation.spec(client),
                before=simulation.received(before, client),
                shared=reply.shared,
                training=training,
                round=number,
            )
            for client, reply in returns.items()
        ]
        if auxiliary is None:
            values.append(measure_round(seen, images))
            continue
        shadows = train_shadow_clients(
            seen,
            auxiliary,
            training=training,
            photos=max(map(len, simulation.split.photos)),
            generator=generator_for("shadow clients", simulation.seed, number),
        )
        values.append(measure_round(seen, images, people=people, shadows=shadows))
        for name, share in property_shares(seen, shadows).items():
            guesses.setdefault(name, []).append(share)
    return join(values), {name: torch.stack(parts).mean(0) for name, parts in guesses.items()}
