"""What a trained federation is worth, and what its defense costs: verification, time, bytes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from fedaudit.core.claims import Claim, worst
from fedaudit.core.measures import Estimate, Utility
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update, tensors_in
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.gradient_transforms import Encodes
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.abilities import Labels
from fedaudit.federation.face_verification import LEAST_PEOPLE, Verification, verify_pairs
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.class_head import embeddings
from fedaudit.stats.crossed import crossed_mean

REPEATS = 5
CLIENT = 0
"""The client whose rounds are timed, and how often."""


def measure(
    simulation: Simulation,
    state: State,
    *,
    rounds: int,
    seconds: float,
    claims: tuple[Claim, ...] = (),
    costs: bool = True,
) -> Utility | None:
    """Utility of one training of a federation; None where too few people are held out.

    None of pictures that are no faces either: nobody is verified by them.

    Where clients keep an embedding of their own, each client's network is measured, and the mean is
    reported: that is what a user of the federation holds.

    Args:
        simulation: Says who is held out.
        state: After the training.
        rounds: Of the training.
        seconds: That it took.
        claims: Of all rounds.
        costs: Measure what a client's round costs, too.
    """
    faces, split = simulation.faces, simulation.split
    if faces.classes or len(split.held_out) < LEAST_PEOPLE:
        return None
    photos = [i for i, person in enumerate(faces.people) if person in split.held_out]
    images, people = faces.images[photos], tuple(faces.people[i] for i in photos)

    def of(state: State) -> Verification:
        return _mean(
            [
                verify_pairs(_embed(simulation, state, client, images), people)
                for client in _distinct(state)
            ]
        )

    scores, fresh = of(state), of(simulation.fresh())
    cost = step_cost(simulation, state) if costs else None
    broadcast = simulation.received(state, 0)
    update = sum(value.numel() * value.element_size() for value in broadcast.values())
    return _estimate(
        (scores.accuracies,),
        (fresh.accuracies,),
        tar_at_far=scores.tar_at_far,
        auc=scores.auc,
        pairs=scores.pairs,
        rounds=rounds,
        seconds=seconds,
        bytes_per_client_round=2 * update,
        training_claims=claims,
        step_seconds=cost.seconds if cost else None,
        plain_step_seconds=cost.plain_seconds if cost else None,
        bytes_sent=cost.bytes if cost else None,
        plain_bytes_sent=cost.plain_bytes if cost else None,
    )


def pool_trainings(trainings: Sequence[Utility], central: Sequence[Utility] = ()) -> Utility:
    """One utility over several trainings from other seeds, the first of which states the costs.

    Args:
        trainings: At least one; all of the same federation and held-out people.
        central: Trainings of one place that has everybody's photos, where there are any.
    """
    first = trainings[0]
    names = [name for name in first.tar_at_far if all(name in t.tar_at_far for t in trainings)]
    reference = crossed_mean([row for t in central for row in t.accuracies]) if central else None
    values = {field.name: getattr(first, field.name) for field in fields(first)}
    for name in ("accuracy", "untrained", "gain", "accuracies", "untrained_accuracies"):
        del values[name]
    values |= {
        "tar_at_far": {name: fmean(t.tar_at_far[name] for t in trainings) for name in names},
        "auc": fmean(t.auc for t in trainings),
        "seconds": median(t.seconds for t in trainings),
        "central": reference,
        "training_claims": worst(t.training_claims for t in trainings),
    }
    return _estimate(
        tuple(row for t in trainings for row in t.accuracies),
        tuple(row for t in trainings for row in t.untrained_accuracies),
        **values,
    )


def accuracy_difference(first: Utility, second: Utility) -> Estimate | None:
    """First − second by person and training; None where they are not of the same."""
    return _difference(first.accuracies, second.accuracies)


def _difference(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> Estimate | None:
    if [len(row) for row in first] != [len(row) for row in second]:
        return None
    rows = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)]
    return crossed_mean(rows, low=-1.0)


def _estimate(
    accuracies: tuple[tuple[float, ...], ...],
    chance: tuple[tuple[float, ...], ...],
    **measures: Any,
) -> Utility:
    gain = _difference(accuracies, chance)
    assert gain  # both are of the same people
    return Utility(
        accuracy=crossed_mean(accuracies),
        untrained=crossed_mean(chance),
        gain=gain,
        accuracies=accuracies,
        untrained_accuracies=chance,
        **measures,
    )


def _distinct(state: State) -> tuple[int, ...]:
    own = any(not name.startswith("head.") for local in state.kept.values() for name in local)
    return tuple(state.kept) if own else (0,)


@torch.no_grad()
def _embed(simulation: Simulation, state: State, client: int, images: Tensor) -> Tensor:
    parameters = {**simulation.received(state, client), **state.kept.get(client, {})}
    model = build(simulation.spec(client), parameters).eval()
    return torch.cat([embeddings(model, part) for part in torch.split(images, 64)])


def _mean(clients: Sequence[Verification]) -> Verification:
    first = clients[0]
    return Verification(
        accuracies=tuple(map(fmean, zip(*(c.accuracies for c in clients), strict=True))),
        tar_at_far={name: fmean(c.tar_at_far[name] for c in clients) for name in first.tar_at_far},
        auc=fmean(c.auc for c in clients),
        pairs=first.pairs,
    )


@dataclass(frozen=True)
class StepCost:
    """One client's round with the defense and without.

    Attributes:
        seconds, plain_seconds: Median CPU seconds of the process, measured by turns.
        bytes, plain_bytes: Of all that is sent, in the encoding that the defense names, if any.
    """

    seconds: float
    plain_seconds: float
    bytes: int
    plain_bytes: int


def step_cost(simulation: Simulation, state: State, *, repeats: int = REPEATS) -> StepCost:
    """Measure client 0's round from `state`, on the photos and settings of its training.

    The undefended round starts from what a federation without the defense would broadcast, where
    the defense changes the network or keeps parameters: from a fresh model. Where nothing defends,
    one measurement is both.
    """
    turns = [(simulation, state)]
    if not isinstance(simulation.defense, NoDefense):
        plain = replace(simulation, defense=NoDefense())
        turns.append((plain, plain.fresh()))
    seconds: tuple[list[float], list[float]] = ([], [])
    sizes = [0, 0]
    for number in range(repeats + 1):
        for k, (one, start) in enumerate(turns):
            generator = generator_for("cost", one.seed, number)
            photos = one.labelled(CLIENT)
            began = time.process_time()
            reply = one.step(start, CLIENT, photos, one.federation.training, generator)
            if number:  # the first turn pays for what is built once
                seconds[k].append(time.process_time() - began)
            sizes[k] = bytes_of(one, reply.shared)
    last = len(turns) - 1
    return StepCost(median(seconds[0]), median(seconds[last]), sizes[0], sizes[last])


def bytes_of(simulation: Simulation, shared: tuple[Shared, ...]) -> int:
    """Bytes of what one client sends; the last defense that encodes an update decides its size."""
    coders = [part for part in parts_of(simulation.defense) if isinstance(part, Encodes)]
    total = 0
    for payload in shared:
        if isinstance(payload, Update) and coders:
            total += coders[-1].encoded_bytes(payload.tensors)
        else:
            total += sum(t.numel() * t.element_size() for t in tensors_in(payload))
    return total


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of a head that classifies what is not a person, such as expressions.

    Attributes:
        accuracy: Mean over classes of the share of their photos that are named rightly.
        chance: Of naming one class always: 1 / number of classes.
        photos: How many photos were named.
        held_out: They show people who never train. Else the set states no identities, and they are
            the clients' photos whose labels no client uses (they may train without them).
    """

    accuracy: float
    chance: float
    photos: int
    held_out: bool


def class_accuracy(simulation: Simulation, state: State) -> ClassAccuracy | None:
    """Accuracy of the shared head; None where its classes are people, or no photo is left."""
    faces, names = simulation.faces, simulation.labels_of(0)
    if set(names) & set(faces.people):
        return None
    held_out = [i for i, person in enumerate(faces.people) if person in simulation.split.held_out]
    photos = held_out or _without_label(simulation)
    if not photos:
        return None
    labels = torch.tensor([simulation.label_of(0, photo) for photo in photos])
    model = build(simulation.spec(0), simulation.received(state, 0)).eval()
    with torch.no_grad():
        parts = [model(faces.images[part]) for part in torch.split(torch.tensor(photos), 64)]
    right = torch.cat(parts)[:, : len(names)].argmax(1) == labels
    shares = [right[labels == label].double().mean() for label in sorted(set(labels.tolist()))]
    return ClassAccuracy(
        accuracy=float(torch.stack(shares).mean()),
        chance=1 / len(names),
        photos=len(photos),
        held_out=bool(held_out),
    )


def _without_label(simulation: Simulation) -> list[int]:
    """Photos of clients whose label trains nothing."""
    method = simulation.method
    if not isinstance(method, Labels):
        return []
    left: list[int] = []
    for client, photos in enumerate(simulation.split.photos):
        labels = torch.tensor([simulation.label_of(client, photo) for photo in photos])
        with_label = {photos[k] for k in method.labelled(labels).tolist()}
        left += [photo for photo in photos if photo not in with_label]
    return left
