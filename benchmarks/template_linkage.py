"""Which templates that clients send can be told to be of one person: across rounds, across clients.

    python benchmarks/template_linkage.py            # some minutes on two cores
    python benchmarks/template_linkage.py --quick    # one seed, fewer rounds, a minute or two

ORL at 32 px, the network `face`, forty people. Two places have 26 people each, of whom 12 are at
both, with three photos here and three other ones there: as the federation sees it, 52 people. With
FedGC a place is one client, with FedFace each of its people is a client, and with PrivacyFace six
are, who send one center.

    across clients   the two places in one round; a template's chance partner is one of 26
    across rounds    one place (PrivacyFace: every client) in two rounds, under new names

The server links by cosine and one-to-one assignment, through the drift of the backbone, which it
sees with 400 generated faces. "noise" is the same with one side replaced by noise of the same norm:
what it shows, the measures owe to small numbers. linked and rank-1 have 95 % intervals; D_sys is 0
where templates of one person are unlinkable and 1 where they are fully linkable.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.templates.linking import embed, link, templates
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.measures import Rate
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.data.orl import orl
from fedaudit.data.splits import Split
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.linkage import judge

AT_BOTH, AT_ONE = 12, 14
PHOTOS, HALF = 3, 5
PLACE = AT_BOTH + AT_ONE
GROUP = 6
Pair = tuple[Sequence[Observation], Sequence[Observation], Tensor]


@dataclass(frozen=True)
class Case:
    """One line of the table, and its control.

    Attributes:
        rounds: Trained before the first round that is looked at.
        apart: Rounds between the two that are linked; 0 links two places in one round.
        again: The person's template is made anew in the later round, from other photos.
    """

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    rounds: int = 0
    apart: int = 0
    again: bool = False


def cases(rounds: int) -> tuple[Case, ...]:
    """All lines, with this many rounds of training where there is training."""
    # A correction that is strong for few clients draws the rows of each to one point.
    mild = {"strength": 1.0, "scale": 16.0}
    random = {"pretrain_steps": 0}
    noisy = {"radius": 1.5, "max_clusters": 1}
    exact = {**noisy, "epsilon": 1e6}
    return (
        Case("fedgc, clients, round 1", "fedgc", mild),
        Case("fedgc, clients, trained", "fedgc", mild, rounds=rounds),
        Case("fedgc, rounds 2 and 3", "fedgc", mild, rounds=1, apart=1),
        Case(f"fedgc, {rounds} rounds apart", "fedgc", mild, rounds=1, apart=rounds),
        Case("fedface, clients, random start", "fedface", random),
        Case("fedface, clients, pre-trained", "fedface"),
        Case("fedface, clients, trained", "fedface", rounds=rounds),
        Case("fedface, rounds, as the server holds it", "fedface", rounds=1, apart=rounds),
        Case("fedface, rounds, enrolled again", "fedface", apart=rounds, again=True),
        Case("privacyface, ε = 1, rounds", "privacyface", noisy, rounds, 1),
        Case("privacyface, ε = 1e6, rounds", "privacyface", exact, rounds, 1),
    )


def federation(case: Case, seed: int) -> tuple[Simulation, Simulation]:
    """The federation, and the same with everybody's other photos."""
    faces = orl(size=32)
    people = list(dict.fromkeys(faces.people))
    order = torch.randperm(len(people), generator=generator_for("linkage", seed)).tolist()
    both = [people[k] for k in order[:AT_BOTH]]
    rest = [people[k] for k in order[AT_BOTH : AT_BOTH + 2 * AT_ONE]]
    photos: dict[str, list[int]] = {}
    for index, person in enumerate(faces.people):
        photos.setdefault(person, []).append(index)
    # At the second place the same person goes by another name, with the other half of the photos.
    here = {p: photos[p][:HALF] for p in (*both, *rest[:AT_ONE])}
    there = {f"{p}'": photos[p][HALF:] for p in both} | {p: photos[p] for p in rest[AT_ONE:]}
    places = [tuple(here), tuple(there)]
    named = list(faces.people)
    for person in both:
        for index in photos[person][HALF:]:
            named[index] = f"{person}'"
    seen = replace(faces, people=tuple(named))
    first = {p: tuple(mine[:PHOTOS]) for p, mine in (here | there).items()}
    other = {p: tuple(mine[PHOTOS:HALF]) for p, mine in (here | there).items()}
    return (
        _simulation(case, seed, seen, places, first),
        _simulation(case, seed, seen, places, other),
    )


def _simulation(
    case: Case,
    seed: int,
    faces: FaceSet,
    places: Sequence[tuple[str, ...]],
    train: dict[str, tuple[int, ...]],
) -> Simulation:
    alone = case.method == "fedface"
    each = {"fedface": 1, "fedgc": PLACE, "privacyface": GROUP}[case.method]
    clients = tuple(
        place[k : k + each] for place in places for k in range(0, PLACE - PLACE % each, each)
    )
    settings = Federation(
        clients=len(clients),
        training=LocalTraining(0.05, 1 if alone else 4, 16, momentum=0.9),
        photos=PHOTOS,
    )
    split = Split(
        clients=clients,
        photos=tuple(tuple(i for p in mine for i in train[p]) for mine in clients),
        train=train,
        gallery={},
        held_out=(),
    )
    return Simulation(
        network=ModelSpec("face"),
        faces=faces,
        split=split,
        federation=settings,
        method=create("methods", case.method, case.settings),
        defense=create("defenses", "none", {}),
        seed=seed,
    )


def observe(
    simulation: Simulation, state: State, round: int, place: int | None = None
) -> list[Observation]:
    """What the clients of a place send in a round; of None, what everybody does."""
    clients = len(simulation.split.clients)
    mine = (
        range(clients) if place is None else range(place * clients // 2, (place + 1) * clients // 2)
    )
    return [
        simulate(
            simulation,
            state,
            target=client,
            batch_size=len(simulation.split.photos[client]),
            training=simulation.federation.training,
            threat=threat_model("D"),
            round=round,
            seed=round,
        ).seen
        for client in mine
    ]


def pairs(case: Case, seed: int) -> list[Pair]:
    """The two sides that are linked, and everybody's place in the second; one or two of them."""
    first, others = federation(case, seed)
    state, _ = first.train(first.fresh(), range(1, case.rounds + 1))
    at = case.rounds + 1
    if not case.apart:
        mate = torch.cat([torch.arange(AT_BOTH), torch.full((AT_ONE,), -1)])
        return [(observe(first, state, at, 0), observe(first, state, at, 1), mate)]
    later, _ = first.train(state, range(at, at + case.apart))
    asked = first
    if case.again:  # the server has no template of them: they enroll with what it sends now
        asked = others
        later = replace(later, server={n: t for n, t in later.server.items() if "head." not in n})
    if case.method == "privacyface":  # centers are few: all clients at once
        sides = [observe(first, state, at), observe(asked, later, at + case.apart)]
        return [(sides[0], sides[1], _mates(*sides))]
    found: list[Pair] = []
    for place in (0, 1):
        sides = [observe(first, state, at, place), observe(asked, later, at + case.apart, place)]
        found.append((sides[0], sides[1], _mates(*sides)))
    return found


def _mates(first: Sequence[Observation], second: Sequence[Observation]) -> Tensor:
    """Where in the second set is what each of the first is of: a person, or a client's group."""
    ours, theirs = (
        [(seen.client, k) for seen in side for k in range(len(templates(seen)))]
        for side in (first, second)
    )
    return torch.tensor([theirs.index(one) if one in theirs else -1 for one in ours])


def main() -> None:
    """Train, link and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, six rounds")
    parser.add_argument("--seeds", type=int, default=3, help="federations, of other people each")
    parser.add_argument("--only", default="", help="lines whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, rounds = (1, 6) if options.quick else (options.seeds, 20)
    own = Auxiliary(real=False).faces(400, (3, 32, 32), generator_for("anchors"), grayscale=True)
    print(
        f"{'':42}{'chance':>8}{'linked':>18}{'rank-1':>18}{'AUC':>8}{'EER':>8}{'TPR@1%':>8}{'D_sys':>8}"
        "  mated/others"
    )
    for case in cases(rounds):
        if case.name.startswith(options.only):
            line(case, [p for seed in range(seeds) for p in pairs(case, seed)], own)


def line(case: Case, found: Sequence[Pair], own: Tensor) -> None:
    """The case, and below it the noise control."""
    for noise in (False, True):
        started = time.process_time()
        links, mates = [], []
        for number, (first, second, mate) in enumerate(found):
            generator = generator_for("control", number)
            seen = [without_update(one, generator) for one in first] if noise else first
            ours, theirs = (torch.cat([templates(one) for one in side]) for side in (seen, second))
            order = torch.randperm(len(theirs), generator=generator_for("order", number))
            anchors = (embed(first[0], own), embed(second[0], own)) if case.apart else None
            links.append(link(ours, theirs[order], anchors=anchors))
            mates.append(torch.where(mate < 0, -1, order.argsort()[mate.clamp_min(0)]))
        result = judge(links, mates)
        tpr = f"{result.tpr.value:8.2f}" if result.tpr else f"{'—':>8}"
        seconds = time.process_time() - started
        print(
            f"{'  noise' if noise else case.name:42}{result.chance:8.2f}{_rate(result.linked)}"
            f"{_rate(result.rank1)}{result.auc:8.2f}{result.eer:8.2f}{tpr}{result.d_sys:8.2f}"
            f"{result.mated:5}/{result.non_mated}{seconds:6.0f}",
            flush=True,
        )


def _rate(rate: Rate) -> str:
    return f"  {rate.value:.2f} ({rate.low:.2f}–{rate.high:.2f})"


if __name__ == "__main__":
    main()
