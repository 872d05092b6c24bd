"""Captures from the simulated federation."""

from dataclasses import replace

import torch

from fedaudit.data.splits import target_photos
from fedaudit.errors import KnowledgeError
from fedaudit.federation.rounds import Simulation, State
from fedaudit.models.batch_norm import batch_norm_layers, batch_statistics, client_mode
from fedaudit.models.zoo import build
from fedaudit.seeds import generator_for
from fedaudit.types import (
    Buffers,
    Capture,
    Knowledge,
    LocalTraining,
    Observation,
    Secret,
    Shared,
    ThreatModel,
    Update,
)
from fedaudit.verbs import ManipulatingAttack


def simulate(
    simulation: Simulation,
    state: State,
    *,
    target: int,
    batch_size: int,
    training: LocalTraining,
    threat: ThreatModel,
    round: int = 1,
    seed: int = 0,
    malicious: ManipulatingAttack | None = None,
) -> Capture:
    """What one client of the simulated federation shares in one round.

    Args:
        simulation: The federation.
        state: What server and clients hold before the round.
        target: Number of the audited update; decides client and photos.
        batch_size: Photos that the client trains on in this round.
        training: The client's local training on these photos.
        threat: What the attacker is granted.
        round: 1-based number of the round.
        seed: Of the client's randomness (noise, order).
        malicious: The server sends what this attack broadcasts instead of `state`, from which the
            honest rounds before and after are not affected.

    Raises:
        KnowledgeError: A malicious server under a threat model that does not grant manipulation.
    """
    if malicious is not None:
        generator = generator_for("broadcast", simulation.seed, round, target, seed)
        simulation, state = _manipulated(simulation, state, target, malicious, threat, generator)
    client, photos = target_photos(simulation.split, target, batch_size)
    generator = generator_for("capture", simulation.seed, round, target, seed)
    returned = simulation.step(state, client, photos, training, generator)
    faces, classes = simulation.faces, simulation.labels_of(client)
    people = tuple(faces.people[i] for i in photos)
    secret = Secret(
        images=faces.images[list(photos)],
        labels=torch.tensor([classes.index(person) for person in people]),
        people=people,
        sources=tuple(faces.sources[i] for i in photos),
    )
    before = {**state.server, **state.kept.get(client, {})}
    model = client_mode(build(simulation.spec(client), before), training)
    with torch.no_grad():
        statistics = batch_statistics(model, secret.images) if batch_norm_layers(model) else None
    full = Observation(
        model=simulation.spec(client),
        before=state.server,
        shared=returned.shared,
        image_shape=(secret.images.shape[1], secret.images.shape[2], secret.images.shape[3]),
        batch_size=batch_size,
        num_classes=len(classes),
        training=simulation.method.local(training),
        defense=(simulation.defense.facts(),),
        labels=secret.labels,
        round=round,
        client=f"client-{client}",
        statistics=statistics,
    )
    return Capture(withhold(full, threat), secret, returned.budget)


def _manipulated(
    simulation: Simulation,
    state: State,
    target: int,
    attack: ManipulatingAttack,
    threat: ThreatModel,
    generator: torch.Generator,
) -> tuple[Simulation, State]:
    """The federation as the audited client meets it: another model, from another start."""
    if Knowledge.MANIPULATION not in threat.grants:
        raise KnowledgeError(
            f"threat model {threat.name} does not let the server choose what it sends: use threat "
            'model F, G or H, or grant = ["manipulation"].'
        )
    client, _ = target_photos(simulation.split, target, 1)
    model, server = attack.broadcast(simulation.spec(client), state.server, generator=generator)
    return replace(simulation, network=model), replace(state, server=server)


def withhold(seen: Observation, threat: ThreatModel) -> Observation:
    """The observation without the facts that the threat model does not grant."""
    granted = threat.grants
    basic = Knowledge.BASIC in granted
    return replace(
        seen,
        image_shape=seen.image_shape if basic else None,
        batch_size=seen.batch_size if basic else None,
        num_classes=seen.num_classes if basic else None,
        training=seen.training if Knowledge.TRAINING in granted else None,
        defense=seen.defense if Knowledge.DEFENSE in granted else None,
        labels=seen.labels if Knowledge.LABELS in granted else None,
        statistics=seen.statistics if Knowledge.STATISTICS in granted else None,
    )


def without_update(seen: Observation, generator: torch.Generator) -> Observation:
    """The prior-only control: every shared tensor replaced by noise of the same norm.

    Running statistics of batch norm, which noise would make no statistics, are replaced by what
    the server had sent, and facts about the client's batch are taken away.
    What the attack returns on this it owes to its prior and its optimizer, not to the client.
    """

    def noise(shared: Shared) -> Shared:
        if isinstance(shared, Buffers):
            counters = {n: b for n, b in shared.tensors.items() if n not in seen.before}
            unmoved = {n: seen.before[n] for n in shared.tensors if n in seen.before}
            return replace(shared, tensors={**unmoved, **counters})
        if not isinstance(shared, Update):
            return shared
        tensors = {}
        for name, value in shared.tensors.items():
            drawn = torch.randn(value.shape, generator=generator)
            tensors[name] = drawn * (value.norm() / drawn.norm().clamp_min(1e-12))
        return replace(shared, tensors=tensors)

    return replace(seen, shared=tuple(noise(s) for s in seen.shared), statistics=None)
