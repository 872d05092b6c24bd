"""What a client's photos have in common, read off its update by comparison with shadow clients.

The server trains clients of its own, from the model that it sent, on photos of other people of whom
it knows the property, and regresses the share that has it on their updates (passive property
inference of Melis et al., IEEE S&P 2019, who train a classifier on such updates).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.shared import Update
from fedaudit.federation.local_training import train_locally

SHADOWS = 24
"""Shadow clients a round."""
RIDGE = 0.3
"""Of the regression, in units of the mean squared length of centered updates: a guess, untuned."""


@dataclass(frozen=True)
class Auxiliary:
    """Photos that the server has, of people who are in nobody's data.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        people: `[N]` who is who.
        properties: By name, `[N]` whether each photo has it.
    """

    images: Tensor
    people: tuple[str, ...]
    properties: Mapping[str, Tensor]


def property_shares(
    seen: Sequence[Observation],
    auxiliary: Auxiliary,
    *,
    training: LocalTraining,
    photos: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Predicted share of each client's photos that has each property, in one round.

    Args:
        seen: What the server saw of each client; all started from the same model.
        auxiliary: Photos to train shadow clients on.
        training: How clients train.
        photos: How many a client has, about.
        generator: Of the shadow clients.

    Returns:
        By name of the property `[clients]`; only the order of clients means something.

    Raises:
        AttackError: A client sent no update of the whole model.
    """
    first = seen[0]
    updates = [next((s for s in one.shared if isinstance(s, Update)), None) for one in seen]
    sent = [one for one in updates if one is not None]
    classes = first.model.arguments.get("classes")
    if len(sent) < len(seen) or not isinstance(classes, int):
        raise AttackError("properties are read off each client's update of a network with a head")
    if set(sent[0].tensors) - set(first.before):
        raise AttackError("properties are read off updates of parameters that the server sent")
    shadows, shares = [], []
    names = list(auxiliary.properties)
    for number in range(SHADOWS):
        chosen = _chosen(auxiliary.properties[names[number % len(names)]], photos, generator)
        shares.append([float(auxiliary.properties[name][chosen].double().mean()) for name in names])
        who = {p: k for k, p in enumerate(dict.fromkeys(auxiliary.people))}
        places = torch.randint(classes, (len(who),), generator=generator)
        task = ClientTask(
            model=first.model,
            before=first.before,
            kept={},
            images=auxiliary.images[chosen],
            labels=torch.stack([places[who[auxiliary.people[k]]] for k in chosen.tolist()]),
            training=training,
            share=sent[0].kind,
            generator=generator,
        )
        returned = train_locally(task).shared
        shadows.append(next(one for one in returned if isinstance(one, Update)))
    of_shadows = torch.stack([_direction(one, classes) for one in shadows])
    of_clients = torch.stack([_direction(one, classes) for one in sent])
    told = _regressed(of_shadows, torch.tensor(shares, dtype=torch.float64), of_clients)
    return dict(zip(names, told.T, strict=True))


def _chosen(has: Tensor, photos: int, generator: torch.Generator) -> Tensor:
    """Numbers of photos of whom a share drawn at random has the property."""
    photos = min(photos, len(has))
    wanted = int(torch.rand(1, generator=generator) * (photos + 1))
    sides = [has.nonzero().flatten(), (~has).nonzero().flatten()]
    wanted = min(max(wanted, photos - len(sides[1])), len(sides[0]))
    counts = (wanted, photos - wanted)
    parts = [
        side[torch.randperm(len(side), generator=generator)[:count]]
        for side, count in zip(sides, counts, strict=True)
    ]
    return torch.cat(parts)


def _direction(update: Update, classes: int) -> Tensor:
    """The update as a unit vector, without the head, whose rows are other people's."""
    body = [t.flatten() for t in update.tensors.values() if t.ndim and t.shape[0] != classes]
    flat = torch.cat(body or [t.flatten() for t in update.tensors.values()]).double()
    unit: Tensor = flat / flat.norm().clamp_min(1e-30)
    return unit


def _regressed(known: Tensor, shares: Tensor, asked: Tensor) -> Tensor:
    """Ridge regression in its kernel form: `[S, n]`, `[S, p]`, `[C, n]` → `[C, p]`."""
    middle, mean = known.mean(0), shares.mean(0)
    gram = (known - middle) @ (known - middle).T
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(known), dtype=torch.float64)
    weights = torch.linalg.solve(gram + ridge, shares - mean)
    told: Tensor = mean + (asked - middle) @ (known - middle).T @ weights
    return told
