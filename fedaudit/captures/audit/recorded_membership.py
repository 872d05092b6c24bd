"""Who is in the data of a recorded run: candidates against outsiders, without knowing the truth."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from fedaudit.attacks.membership.client_scores import SHADOWED, score
from fedaudit.attacks.membership.round_measurements import join, measure_round
from fedaudit.attacks.membership.shadow_clients import Auxiliary, Shadows, train_shadow_clients
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.format.stated_training import local_training
from fedaudit.core.errors import DataError, UsageError
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.seeds import generator_for
from fedaudit.data.crop import gray
from fedaudit.data.folder import folder

FEWEST = 19
"""Outsiders below which no p-value can fall to 5 %."""


@dataclass(frozen=True)
class Suspicion:
    """What the updates of a recorded run say of one person's membership.

    Attributes:
        person: Name of the candidate's folder.
        client: Whose updates speak most for them.
        attack: By which score.
        p_value: Share of the outsiders (and the candidate) whose highest score over all clients is
            as high; of somebody in nobody's data every value is as likely.
        q_value: Of those whose q-value is at most this one, the share that is expected to be in
            nobody's data (Benjamini and Hochberg; valid here: Bates et al. 2023).
    """

    person: str
    client: str
    attack: str
    p_value: float
    q_value: float


def recorded_membership(
    capture: StoredCapture,
    candidates: Path,
    outsiders: Path,
    *,
    attack: str = "FedMIA",
    rounds: Collection[int] | None = None,
    model: ModelSpec | str | None = None,
    allow_code: bool = False,
) -> tuple[Suspicion, ...]:
    """Whether each candidate is in some client's data, as the server of this run can tell.

    A candidate's score is the highest over the clients, and so is an outsider's; its rank among the
    outsiders' is an exact p-value (conformal: Vovk et al. 2005), whatever the scores are. LiRA and
    RMIA take shadow clients, trained without a defense on half of the outsiders, drawn at random;
    candidates rank among the other half, so that neither has a model that knows them.

    Args:
        capture: Broadcasts and each client's updates; rounds with fewer than all clients are left
            out.
        candidates: A folder a person, photos of them; other ones than trained will do.
        outsiders: The same of people known to be in nobody's data, as alike as can be had.
        attack: "FedMIA" (of three clients and more), "loss", "gradient alignment", or one of
            `SHADOWED`.
        rounds: Only these; None is all.
        model: As in `fedaudit.captures.format.observations.observations`.
        allow_code: Likewise.

    Raises:
        UsageError: The capture has no round with updates of all clients, or no image shape, or for
            shadow clients does not say how clients trained.
        DataError: A folder holds no people, or there are too few outsiders for any statement.
        AttackError: The updates are not of a whole model, or too few clients for the attack.
    """
    by_round: dict[int, list[Observation]] = {}
    for one in observations(capture, rounds=rounds, model=model, allow_code=allow_code):
        by_round.setdefault(one.seen.round, []).append(one.seen)
    clients = _clients(by_round)
    shape = next(iter(by_round.values()))[0].image_shape
    if shape is None:
        raise UsageError(
            "the capture does not say what images enter the network: state image_shape when you "
            "record, or add it with facts."
        )
    inside, outside = _photos(candidates, shape), _photos(outsiders, shape)
    shadowed = attack in SHADOWED
    fewest = 2 * FEWEST if shadowed else FEWEST
    if len(outside) < fewest:
        half = " (Half of them train shadow clients.)" if shadowed else ""
        raise DataError(
            f"{outsiders} holds {len(outside)} people, and with fewer than {fewest} no p-value can "
            f"fall to 5 %.{half} Add people who are in nobody's data."
        )
    known: dict[str, Tensor] = {}
    if shadowed:
        _require_training(capture, by_round)
        names = list(outside)
        order = torch.randperm(len(names), generator=generator_for("shadow people"))
        known = {names[k]: outside.pop(names[k]) for k in order[: len(names) // 2].tolist()}
    people = [*inside.items(), *outside.items(), *known.items()]
    images = torch.cat([photos for _, photos in people])
    # Of those who train no shadow client no name may look like one of who does.
    who = [name if name in known else "" for name in (*[""] * len(inside), *outside, *known)]
    each = [name for name, (_, photos) in zip(who, people, strict=True) for _ in photos]
    measurements = []
    for seen in by_round.values():
        order_of = {one.client: one for one in seen}
        if set(order_of) == set(clients):
            own = [order_of[name] for name in clients]
            shadows = _shadow_clients(own, known) if shadowed else None
            measurements.append(measure_round(own, images, people=each, shadows=shadows))
    scores = score(join(measurements))
    if attack not in scores:
        raise UsageError(f"{attack}: of {len(clients)} clients choose from {', '.join(scores)}.")
    parts = torch.split(scores[attack], [len(photos) for _, photos in people], 1)
    asked = parts[: len(inside) + len(outside)]
    highest = torch.stack([part.mean(1) for part in asked], 1)
    top, at = highest.max(0)
    return _judge(list(inside), top, at, clients, attack)


def _require_training(capture: StoredCapture, rounds: Collection[int]) -> None:
    """Refuse shadow clients where the facts do not say how clients trained."""
    for number in rounds:
        for one in capture.messages(number):
            if missing := local_training(capture.facts, one.message).missing:
                raise UsageError(
                    "shadow clients train as the clients did, and the capture does not say how: it "
                    f"misses {'; '.join(missing)}. State it when you record, or add it with facts; "
                    "FedMIA, loss and gradient alignment do without."
                )


def _shadow_clients(seen: Sequence[Observation], known: Mapping[str, Tensor]) -> Shadows:
    """Shadow clients of a round, who train as the client with the middle number of steps."""
    settings = [one.training for one in seen if one.training is not None]
    training = sorted(settings, key=lambda one: one.steps)[len(settings) // 2]
    who = tuple(name for name, photos in known.items() for _ in photos)
    return train_shadow_clients(
        seen,
        Auxiliary(torch.cat(list(known.values())), who, {}),
        training=training,
        photos=int(np.median([one.batch_size or 1 for one in seen])),
        generator=generator_for("shadow clients", seen[0].round),
    )


def _photos(root: Path, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Photos `[n, C, H, W]` by person, as they enter the network."""
    channels, height, width = shape
    if height != width or channels not in {1, 3}:
        raise UsageError(
            f"photos are prepared as squares, in color or gray, and the network takes {shape}."
        )
    faces = folder(path=str(root), size=height)
    images = gray(faces.images) if channels == 1 else faces.images
    return {
        name: images[[k for k, person in enumerate(faces.people) if person == name]]
        for name in dict.fromkeys(faces.people)
    }


def _judge(
    names: Sequence[str], top: Tensor, at: Tensor, clients: Sequence[str], attack: str
) -> tuple[Suspicion, ...]:
    own, others = top[: len(names)], top[len(names) :]
    p_values = [(1 + int((others >= one).sum())) / (1 + len(others)) for one in own]
    return tuple(
        Suspicion(name, clients[int(place)], attack, p, float(q))
        for name, place, p, q in zip(
            names, at[: len(names)], p_values, false_discovery_control(p_values), strict=True
        )
    )


def _clients(by_round: dict[int, list[Observation]]) -> list[str]:
    """Those of the round that has most."""
    most = max(by_round.values(), key=len, default=[])
    if len(most) < 2:
        raise UsageError(
            "membership compares clients, and no round of the capture holds two updates that can "
            "be used. `fedaudit inspect` says what it holds."
        )
    return [one.client for one in most]
