"""What a trained federation is worth: verification of people it never saw."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fedaudit.core.claims import Budget
from fedaudit.core.measures import Utility
from fedaudit.federation.cost import step_cost
from fedaudit.federation.simulation import Simulation, State
from fedaudit.models.facenet import require_face_net
from fedaudit.models.zoo import build
from fedaudit.stats.intervals import auc

FARS = {"1e-2": 1e-2, "1e-3": 1e-3}


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
