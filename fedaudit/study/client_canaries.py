"""Canaries that are whole clients: their updates point in directions that a coin decides.

A canary client sends one random direction, longer than any clipping norm, through the defense that
all clients have. Its cosine with what the server sees says whether it took part (Andrew et al.,
ICLR 2024, arXiv 2302.03098: "One-shot empirical privacy estimation for federated learning").
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.core.claims import Claim
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.defenses.composition import PrivacyLedger, apply_defense
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import combine, defense_at, publish
from fedaudit.models.build_network import build, parameters_of
from fedaudit.study.canary_training import Seen, client_task, update_of

LENGTH = 1e4
"""L2 norm of a canary before it is clipped: far above clipping norms in use."""


@dataclass(frozen=True)
class ClientCosines:
    """What a federation with canary clients shows of them.

    Attributes:
        inside: `[m]`, the coins: whether each canary took part. Those of tails send nothing, or,
            where the claim is for replacing a client's data, the opposite direction.
        cosines: `[m]`, of each direction with what was seen, scaled so that those of directions
            that nobody took have a standard deviation of 1 / √`numbers`.
        numbers: In an update.
        claim: For a client, over all rounds, by its defense.
    """

    inside: Tensor
    cosines: Tensor
    numbers: int
    claim: Claim


def train_with_canary_clients(
    simulation: Simulation,
    canaries: int,
    *,
    seed: int = 0,
    seen: Seen = "updates",
    progress: Callable[[int, int], None] | None = None,
) -> ClientCosines:
    """Run all rounds of a federation with so many more clients, who are canaries.

    Args:
        simulation: The federation, with its defense.
        canaries: How many; at least 2.
        seed: Of the coins, the directions and all training.
        seen: "updates": each client's, in each round; "model": the final one alone.
        progress: Takes (rounds done, rounds).

    Raises:
        ConfigError: The defense claims nothing for a client, or sends no update of the model.
    """
    inside = torch.rand(canaries, generator=generator_for("canaries", seed)) < 0.5
    spec, clients = simulation.spec(0), len(simulation.split.clients)
    start = {**parameters_of(build(spec, seed=seed))}
    server: dict[str, Tensor] = start
    public: dict[str, Tensor] = {}
    memory: dict[int, dict[str, Tensor]] = {}
    ledger, cosines = PrivacyLedger(), torch.zeros(canaries)
    tasks = [client_task(simulation, spec, client) for client in range(clients)]
    opposite, rounds = False, simulation.federation.rounds
    for number in range(1, rounds + 1):
        defense, returns = defense_at(simulation.defense, public), []

        for client, task in enumerate(tasks):
            asked = _in_round(task, server, memory.get(client, {}), seed, number, client)
            returns.append(apply_defense(defense, train_locally)(asked))
            memory[client] = dict(returns[-1].memory)
            ledger.add(client, returns[-1])
        layout = update_of(returns[0].shared)
        opposite = _claim(ledger).neighbors == "replace one"
        for canary in range(canaries):
            sign = 1.0 if inside[canary] else -1.0 if opposite else 0.0
            own = _direction(layout, seed, canary)

            def step(
                task: ClientTask, own: Mapping[str, Tensor] = own, sign: float = sign
            ) -> ClientReturn:
                sent = {name: sign * LENGTH * value for name, value in own.items()}
                return ClientReturn((Update(task.share, sent),))

            client = clients + canary
            asked = _in_round(tasks[0], server, memory.get(client, {}), seed, number, client)
            returns.append(apply_defense(defense, step)(asked))
            memory[client] = dict(returns[-1].memory)
            if seen == "updates":
                cosines[canary] += _cosine(own, update_of(returns[-1].shared).tensors)
        sent = [one.shared for one in returns]
        updates = [update_of(shared) for shared in sent]
        server = dict(combine(simulation.method, server, updates, tasks[0].training))
        public = publish(defense, sent)
        if progress:
            progress(number, rounds)
    if seen == "model":
        moved = {name: server[name] - start[name] for name in layout.tensors}
        way = -1.0 if layout.kind == "gradient" else 1.0
        for canary in range(canaries):
            cosines[canary] = way * _cosine(_direction(layout, seed, canary), moved)
    else:
        cosines /= math.sqrt(rounds)
    count = sum(value.numel() for value in layout.tensors.values())
    return ClientCosines(inside, cosines, count, _claim(ledger))


def _in_round(
    task: ClientTask,
    server: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    seed: int,
    number: int,
    client: int,
) -> ClientTask:
    """The task of a client in a round, with draws of its own."""
    draws = generator_for("canary training", seed, number, client)
    return replace(task, before=server, generator=draws, memory=memory)


def _claim(ledger: PrivacyLedger) -> Claim:
    claims = [one for one in ledger.weakest() if one.unit == "client" and not one.broken]
    if not claims:
        raise ConfigError(
            "this defense claims nothing for a whole client, and canary clients would pass it by. "
            "Ask for --unit image or person, or audit client_dp."
        )
    return claims[0]


def _direction(layout: Update, seed: int, canary: int) -> dict[str, Tensor]:
    """A random unit vector in the shape of an update; the same whenever it is asked for."""
    draws = generator_for("canary client", seed, canary)
    drawn = {
        name: torch.randn(value.shape, generator=draws) for name, value in layout.tensors.items()
    }
    norm = math.sqrt(sum(float(value.square().sum()) for value in drawn.values()))
    return {name: value / norm for name, value in drawn.items()}


def _cosine(own: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> float:
    """Of a unit vector with what was sent; 0 where that is nothing."""
    along = sum(float((own[name] * sent[name]).sum()) for name in own)
    norm = math.sqrt(sum(float(sent[name].square().sum()) for name in own))
    return along / norm if norm else 0.0
