"""What a trained federation is worth, and what its defense costs: verification, time, bytes."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from fedaudit.core.claims import Budget
from fedaudit.core.measures import Utility
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update, tensors_in
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.gradient_transforms import Encodes
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.abilities import Labels
from fedaudit.federation.simulation import Simulation, State
from fedaudit.models.facenet import require_face_net
from fedaudit.models.zoo import build
from fedaudit.stats.intervals import auc

FARS = {"1e-2": 1e-2, "1e-3": 1e-3}
REPEATS = 5
CLIENT = 0
"""The client whose rounds are timed, and how often."""


def verification(embeddings: Tensor, people: tuple[str, ...]) -> dict[str, float]:
    """Verification over all pairs of `embeddings [N, D]` (unit rows).

    Returns:
        `accuracy` (balanced over genuine and impostor pairs, best threshold), `auc`, `pairs`, and
        `tar@FAR` for each FAR of `FARS`.
    """
    rows, columns = torch.triu_indices(len(people), len(people), 1)
    scores = (embeddings @ embeddings.T)[rows, columns].double()
    codes = torch.tensor([sorted(set(people)).index(p) for p in people])
    genuine = codes[rows] == codes[columns]
    true, false = scores[genuine], scores[~genuine].sort().values
    below = torch.searchsorted(false, true.sort().values) / len(false)
    accept = torch.arange(len(true), 0, -1) / len(true)
    result = {
        "accuracy": float(((accept + below) / 2).max()),
        "auc": auc(true, false),
        "pairs": float(len(scores)),
    }
    for name, far in FARS.items():
        threshold = false[len(false) - 1 - int(far * len(false))]
        result[f"tar@{name}"] = float((true > threshold).double().mean())
    return result


def measure(
    simulation: Simulation,
    state: State,
    *,
    rounds: int,
    seconds: float,
    budget: Budget | None = None,
) -> Utility | None:
    """Utility of a trained federation; None where nobody is held out.

    Where clients keep an embedding of their own, each client's network is measured, and the mean is
    reported: that is what a user of the federation holds. `budget` is the guarantee of all rounds.
    """
    faces, split = simulation.faces, simulation.split
    photos = [i for i, person in enumerate(faces.people) if person in split.held_out]
    if not photos:
        return None
    images, people = faces.images[photos], tuple(faces.people[i] for i in photos)

    def of(state: State) -> dict[str, float]:
        return _mean(
            verification(_embed(simulation, state, client, images), people)
            for client in _distinct(state)
        )

    trained, fresh = of(state), of(simulation.fresh())
    cost = step_cost(simulation, state)
    received = simulation.received(state, 0)
    update = sum(value.numel() * value.element_size() for value in received.values())
    return Utility(
        accuracy=trained["accuracy"],
        tar_at_far={name: trained[f"tar@{name}"] for name in FARS},
        auc=trained["auc"],
        pairs=int(trained["pairs"]),
        rounds=rounds,
        seconds=seconds,
        bytes_per_client_round=2 * update,
        training_epsilon=budget.epsilon if budget and budget.epsilon < float("inf") else None,
        training_delta=budget.delta if budget else None,
        training_unit=budget.unit if budget else "",
        untrained_accuracy=fresh["accuracy"],
        step_seconds=cost.seconds,
        plain_step_seconds=cost.plain_seconds,
        bytes_sent=cost.bytes,
        plain_bytes_sent=cost.plain_bytes,
    )


def _distinct(state: State) -> tuple[int, ...]:
    own = any(not name.startswith("head.") for kept in state.kept.values() for name in kept)
    return tuple(state.kept) if own else (0,)


@torch.no_grad()
def _embed(simulation: Simulation, state: State, client: int, images: Tensor) -> Tensor:
    parameters = {**simulation.received(state, client), **state.kept.get(client, {})}
    model = require_face_net(build(simulation.spec(client), parameters), "verification").eval()
    return torch.cat([model.embed(part) for part in torch.split(images, 64)])


def _mean(results: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(results)
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


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
            returned = one.step(start, CLIENT, photos, one.federation.training, generator)
            if number:  # the first turn pays for what is built once
                seconds[k].append(time.process_time() - began)
            sizes[k] = bytes_of(one, returned.shared)
    last = len(turns) - 1
    return StepCost(median(seconds[0]), median(seconds[last]), sizes[0], sizes[last])


def bytes_of(simulation: Simulation, shared: tuple[Shared, ...]) -> int:
    """Bytes of what one client sends; the last defense that encodes an update decides its size."""
    coders = [part for part in parts_of(simulation.defense) if isinstance(part, Encodes)]
    total = 0
    for sent in shared:
        if isinstance(sent, Update) and coders:
            total += coders[-1].encoded_bytes(sent.tensors)
        else:
            total += sum(t.numel() * t.element_size() for t in tensors_in(sent))
    return total


@dataclass(frozen=True)
class ClassAccuracy:
    """Of a head that tells apart what everybody has, such as expressions.

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
        used = {photos[k] for k in method.labelled(labels).tolist()}
        left += [photo for photo in photos if photo not in used]
    return left
