"""Train a study's federation with canaries among the clients' images, and read them each round.

Each canary is at one client, in or out by a coin of its own. The server sees each client's update
in each round (white-box), and a canary's score is how far its own weight was moved: exactly what
the mechanism lets through of one image, under its noise. Who sees the final model alone (black-box)
has canaries of random pixels under random labels, and how much training lowered their loss.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedaudit.core.claims import Claim
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.defenses.composition import PrivacyLedger, apply_defense
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import combine, defense_at, publish, share_of
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.canary_network import WEIGHTS, canary_images, with_canaries
from fedaudit.models.facenet import criterion_of

METHODS = ("fedsgd", "fedavg", "fedprox")
Seen = Literal["updates", "model"]
"""What the attacker has: each client's update of each round, or the final model alone."""
Unit = Literal["image", "person", "client"]
"""What a canary is: one image, the photos of a person, or a whole client."""


@dataclass(frozen=True)
class CanaryScores:
    """What a training with canaries shows of them.

    Attributes:
        inside: `[m]`, the coins: whether each canary trained.
        scores: `[m]`, how far each one's weight was moved, over all rounds.
        clients: `[m]`, at whom each one is.
        claims: Of the weakest client over all rounds, as its defense states them.
        training: How each client trained, with the batch of an average client.
        share: "gradient" or "delta".
        rounds: Of the training.
        batches: Expected images of a step, of each client.
        photos: Of each canary.
    """

    inside: Tensor
    scores: Tensor
    clients: Tensor
    claims: tuple[Claim, ...]
    training: LocalTraining
    share: str
    rounds: int
    batches: tuple[float, ...]
    photos: int = 1


def require_method(method: str) -> None:
    """Refuse a method of a study that shares more than the model's update, by `ConfigError`."""
    if method not in METHODS:
        raise ConfigError(
            f"canaries are planted in {', '.join(METHODS)}, not in {method}: write "
            'method = "fedavg" in the scenario.'
        )


def train_with_canaries(
    simulation: Simulation,
    canaries: int,
    *,
    photos: int = 1,
    seed: int = 0,
    seen: Seen = "updates",
    progress: Callable[[int, int], None] | None = None,
) -> CanaryScores:
    """Run all rounds of a federation in which canaries train beside the clients' photos.

    Sampling is as the study plans it: a client's batch grows with the canaries at it.

    Args:
        simulation: The federation, with its defense.
        canaries: How many; at least 2.
        photos: Of each canary, who is a person then: all of them train, or none.
        seed: Of the coins and of all training.
        seen: What the attacker has.
        progress: Takes (rounds done, rounds).

    Raises:
        ConfigError: The defense sends no update of the model.
    """
    clients = len(simulation.split.clients)
    coins = generator_for("canaries", seed)
    inside = torch.rand(canaries, generator=coins) < 0.5
    at = torch.arange(canaries) % clients
    spec, pool = simulation.spec(0), _pool(simulation, canaries, seen, seed)
    spec = with_canaries(spec, canaries) if seen == "updates" else spec
    start = {**parameters_of(build(spec, seed=seed))}
    server: dict[str, Tensor] = start
    public: dict[str, Tensor] = {}
    memory: dict[int, dict[str, Tensor]] = {}
    ledger, scores = PrivacyLedger(), torch.zeros(canaries)
    tasks = [
        client_task(
            simulation,
            spec,
            k,
            *(part[inside & (at == k)].repeat_interleave(photos, 0) for part in pool),
        )
        for k in range(clients)
    ]
    rounds = simulation.federation.rounds
    for number in range(1, rounds + 1):
        defense, returns = defense_at(simulation.defense, public), []
        for client, task in enumerate(tasks):
            job = replace(
                task,
                before=server,
                generator=generator_for("canary training", seed, number, client),
                memory=memory.get(client, {}),
            )
            returns.append(apply_defense(defense, train_locally)(job))
            memory[client] = dict(returns[-1].memory)
            ledger.add(client, returns[-1])
            if seen == "updates":
                step, own = update_of(returns[-1].shared).tensors[WEIGHTS][0], at == client
                scores[own] += step[own] if task.share == "gradient" else -step[own]
        payloads = [one.shared for one in returns]
        updates = [update_of(shared) for shared in payloads]
        server = dict(combine(simulation.method, server, updates, tasks[0].training))
        public = publish(defense, payloads)
        if progress:
            progress(number, rounds)
    if seen == "model":
        scores = _losses(spec, start, *pool) - _losses(spec, server, *pool)
    return CanaryScores(
        inside=inside,
        scores=scores,
        clients=at,
        claims=ledger.weakest(),
        training=tasks[0].training,
        share=tasks[0].share,
        rounds=rounds,
        batches=tuple(_expectation(task) for task in tasks),
        photos=photos,
    )


def _pool(simulation: Simulation, canaries: int, seen: Seen, seed: int) -> tuple[Tensor, Tensor]:
    """All canaries: images `[m, C, H, W]` and labels `[m]`."""
    _, channels, height, width = simulation.faces.images.shape
    classes = len(simulation.labels_of(0))
    shape = (channels, height, width)
    if seen == "updates":
        return canary_images(torch.arange(canaries), shape), torch.full((canaries,), classes)
    draws = generator_for("canary images", seed)
    images = torch.rand(canaries, *shape, generator=draws)
    return images, torch.randint(classes, (canaries,), generator=draws)


def _losses(
    spec: ModelSpec, server: Mapping[str, Tensor], images: Tensor, labels: Tensor
) -> Tensor:
    """`[m]`: the loss of each canary."""
    model = build(spec, server)
    criterion = criterion_of(model)
    with torch.no_grad():
        scores = torch.cat([model(part) for part in torch.split(images, 256)])
        each = [criterion(scores[k : k + 1], labels[k : k + 1]) for k in range(len(labels))]
    return torch.stack(each)


def client_task(
    simulation: Simulation,
    spec: ModelSpec,
    client: int,
    images: Tensor | None = None,
    labels: Tensor | None = None,
) -> ClientTask:
    """A client's round on its photos and these canaries, at the planned share of them a step."""
    photos = simulation.labelled(client)
    own = torch.tensor([simulation.label_of(client, photo) for photo in photos])
    planned = simulation.local(simulation.federation.training)
    batches = math.ceil(len(photos) / min(planned.batch_size, len(photos)))
    everything, named = simulation.images(photos), own
    if images is not None and labels is not None:
        everything, named = torch.cat((everything, images)), torch.cat((own, labels))
    return ClientTask(
        model=spec,
        before={},
        kept={},
        images=everything,
        labels=named,
        training=replace(planned, batch_size=math.ceil(len(everything) / batches)),
        share=share_of(simulation.method),
        generator=torch.Generator(),
    )


def _expectation(task: ClientTask) -> float:
    """Images of a step, as Poisson sampling expects them."""
    return len(task.images) / math.ceil(len(task.images) / task.training.batch_size)


def update_of(shared: tuple[object, ...]) -> Update:
    """The update among what a client sent, in which canaries are read; `ConfigError` without."""
    found = next((sent for sent in shared if isinstance(sent, Update)), None)
    if found is None:
        raise ConfigError("this defense sends no update of the model, in which canaries are read")
    return found
