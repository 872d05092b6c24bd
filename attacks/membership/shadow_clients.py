"""Shadow clients: what the server trains itself, on photos of people whom it knows.

They start from the model that the server sent and train as clients do, so that they show what an
update looks like whose photos are known: for properties (`property_regression`), and for people who
were *not* trained on, which LiRA and RMIA compare with (`client_scores`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.membership.client_steps import step_of
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.shared import Update
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build, parameters_of

SHADOWS = 24
"""Shadow clients a round."""


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


@dataclass(frozen=True)
class Shadows:
    """Shadow clients of one round.

    Attributes:
        seen: What the server would have seen of each.
        people: On whom each trained.
        shares: By property, `[shadows]` share of each one's photos that has it.
    """

    seen: tuple[Observation, ...]
    people: tuple[frozenset[str], ...]
    shares: Mapping[str, Tensor]

    def trained_on(self, people: Sequence[str]) -> Tensor:
        """`[shadows, N]`: whether each trained on each of these people."""
        return torch.tensor([[person in own for person in people] for own in self.people])


def train_shadow_clients(
    seen: Sequence[Observation],
    auxiliary: Auxiliary,
    *,
    training: LocalTraining,
    photos: int,
    generator: torch.Generator,
) -> Shadows:
    """Train shadow clients from the model of one round, each on half of the known people at most.

    So at least half of them have not trained on any one person. Of one property, in turn, a share
    drawn at random has it.

    Args:
        seen: What the server saw of each client; all started from the same model.
        auxiliary: Photos to train on.
        training: How clients train.
        photos: How many a client has, about.
        generator: Of the shadow clients.

    Raises:
        AttackError: A client sent no update of the whole model, or nobody knows how many classes.
    """
    first = seen[0]
    step_of(first, parameters_of(build(first.model, first.before)))
    sent = next(one for one in first.shared if isinstance(one, Update))
    classes = first.num_classes or first.model.arguments.get("classes")
    if not isinstance(classes, int):
        raise AttackError(
            "shadow clients train a network with a head, and of this one the number of classes is "
            "not known: of a recording, state classes when you record, or add it with facts."
        )
    names, who = list(auxiliary.properties), tuple(dict.fromkeys(auxiliary.people))
    shadows, people, shares = [], [], []
    for number in range(SHADOWS):
        order = torch.randperm(len(who), generator=generator)[: max(1, len(who) // 2)]
        half = {who[k] for k in order.tolist()}
        at = torch.tensor([k for k, person in enumerate(auxiliary.people) if person in half])
        has = auxiliary.properties[names[number % len(names)]][at] if names else at % 2 == 0
        chosen = at[_chosen(has, photos, generator)]
        shares.append([float(auxiliary.properties[name][chosen].double().mean()) for name in names])
        mine = [auxiliary.people[k] for k in chosen.tolist()]
        people.append(frozenset(mine))
        places = torch.randint(classes, (len(who),), generator=generator)
        task = ClientTask(
            model=first.model,
            before=first.before,
            kept={},
            images=auxiliary.images[chosen],
            labels=torch.stack([places[who.index(person)] for person in mine]),
            training=training,
            share=sent.kind,
            generator=generator,
        )
        shadows.append(
            Observation(
                model=first.model,
                before=first.before,
                shared=train_locally(task).shared,
                training=training,
                round=first.round,
            )
        )
    by_name = torch.tensor(shares, dtype=torch.float64).reshape(len(shadows), len(names)).T
    return Shadows(tuple(shadows), tuple(people), dict(zip(names, by_name, strict=True)))


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
