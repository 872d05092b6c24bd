"""Captures from the simulated federation."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.claims import Claim, Gap
from fedaudit.core.client import ClientReturn
from fedaudit.core.errors import KnowledgeError
from fedaudit.core.knowledge import Knowledge, ThreatModel
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.protocols import ManipulatingAttack
from fedaudit.core.seeds import generator_for, seed_for
from fedaudit.core.shared import Aggregate, Shared, Update
from fedaudit.data.splits import target_photos
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.composition import claims_of, over_rounds, sum_claims
from fedaudit.federation.abilities import Aggregates, Labels
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import defense_at, is_secure, photos_of, targets_behind
from fedaudit.models.batch_norm import Statistics, batch_norm_layers, batch_statistics, client_mode
from fedaudit.models.build_network import build


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
    only: tuple[str, ...] = (),
    rounds_seen: int = 1,
) -> Capture:
    """What one client of the simulated federation shares in one round.

    Args:
        simulation: The federation.
        state: What server and clients hold before the round.
        target: Number of the audited update; decides client and photos. Of a secure aggregate, the
            number of the round's first target: the truth is then everybody's photos.
        batch_size: Photos that the client trains on in this round and that are audited; a defense
            may bring more.
        training: The client's local training on these photos.
        threat: What the attacker is granted.
        round: 1-based number of the round.
        seed: Of the client's randomness (noise, order).
        malicious: The server sends what this attack broadcasts instead of `state`, from which the
            honest rounds before and after are not affected.
        only: What of the shared things the attacker is shown (`exposed_things.expose`); () is all.
        rounds_seen: Rounds in which the client trains on these photos, from the same state. Those
            before the audited one differ from it in the client's randomness, and are `earlier`.

    Raises:
        ConfigError: `only` names something that is not shared.
        KnowledgeError: A malicious server under a threat model that does not grant manipulation.
    """
    if malicious is not None:
        generator = generator_for("broadcast", simulation.seed, round, target, seed)
        simulation, state = _manipulate(simulation, state, target, malicious, threat, generator)
    secure = is_secure(simulation.method)
    together = _is_sum(simulation)
    everybody = []
    total = photos_of(simulation.defense, batch_size)
    numbers = targets_behind(
        simulation.method,
        simulation.aggregator,
        clients=len(simulation.split.clients),
        target=target,
        seed=simulation.seed,
    )
    for number in numbers:
        client, photos = target_photos(simulation.split, number, batch_size, total)
        generator = generator_for("capture", simulation.seed, round, number, seed)
        reply = simulation.step(state, client, photos, training, generator)
        everybody.append((client, photos, reply))
    client, photos, reply = everybody[0]
    shared = _view_of_server(
        simulation, everybody, generator_for("masks", simulation.seed, round, target)
    )
    targets = everybody if secure else everybody[:1]
    behind = [(c, photo) for c, mine, _ in targets for photo in mine[:batch_size]]
    count = len(behind)
    behind += [(c, photo) for c, mine, _ in targets for photo in mine[batch_size:]]
    behind += [(c, photo) for c, mine, _ in everybody[len(targets) :] for photo in mine]
    labels = _labels_behind([r for *_, r in everybody])
    if _unlabelled_only(simulation, only):
        behind = [(client, photo) for photo in simulation.unlabelled(client, photos)]
        count, labels = len(behind), None
    current = defense_at(simulation.defense, state.public)
    defense = tuple(part.facts() for part in parts_of(current))
    secret = replace(
        _truth(simulation, behind, [c for c, *_ in targets]),
        audited=count if count < len(behind) else None,
        behind=labels,
        defense=defense,
    )
    spec, broadcast = simulation.spec(client), simulation.received(state, client)
    model = client_mode(build(spec, {**broadcast, **state.kept.get(client, {})}), training)
    _, channels, height, width = secret.images.shape
    full = Observation(
        model=spec,
        before=broadcast,
        shared=shared,
        image_shape=(channels, height, width),
        batch_size=None,
        num_classes=spec.arguments["classes"],
        training=simulation.local(training),
        defense=defense,
        labels=secret.labels if labels is None else labels,
        round=round,
        client="everybody" if together else f"client-{client}",
        statistics=_statistics(model, secret.images),
    )
    full = expose(full, only) if only else full
    full = replace(full, batch_size=_images_behind(full.shared, len(behind)))
    earlier = [
        simulate(
            simulation,
            state,
            target=target,
            batch_size=batch_size,
            training=training,
            threat=threat,
            round=round,
            seed=seed_for("earlier", seed, number),
            only=only,
        )
        for number in range(1, rounds_seen)
    ]
    full = replace(full, earlier=tuple(capture.seen for capture in earlier))
    seen = withhold(full, threat)
    own = _claims(simulation, [r for *_, r in everybody], shared)
    claims = tuple(claim.without(*_gaps_of_knowledge(seen)) for claim in own)
    return Capture(seen, secret, over_rounds([*(c.claims for c in earlier), claims]))


def _view_of_server(
    simulation: Simulation,
    everybody: Sequence[tuple[int, tuple[int, ...], ClientReturn]],
    generator: torch.Generator,
) -> tuple[Shared, ...]:
    """What the server sees of these clients: what one sent, or an aggregator's output."""
    uploads = {client: reply.shared for client, _, reply in everybody}
    if isinstance(simulation.method, Aggregates) and simulation.method.secure:
        return simulation.method.aggregate([uploads[client] for client in sorted(uploads)])
    if simulation.aggregator is None:
        return everybody[0][2].shared
    return simulation.aggregator.aggregate(uploads, len(simulation.split.clients), generator)


def _claims(
    simulation: Simulation, returns: Sequence[ClientReturn], shared: tuple[Shared, ...]
) -> tuple[Claim, ...]:
    """What is claimed for the first of these clients, or for everybody behind a secure sum."""
    of_each = [claims_of(reply) for reply in returns]
    return sum_claims(of_each, shared) if _is_sum(simulation) else of_each[0]


def _is_sum(simulation: Simulation) -> bool:
    return simulation.aggregator is not None or is_secure(simulation.method)


def _gaps_of_knowledge(seen: Observation) -> tuple[Gap, ...]:
    """What the attacker is granted beside what was sent, and no claim covers."""
    granted = {"labels": seen.labels, "statistics": seen.statistics}
    why = "the threat model grants them without noise"
    return tuple(Gap(name, why) for name, value in granted.items() if value is not None)


def _unlabelled_only(simulation: Simulation, only: tuple[str, ...]) -> bool:
    """Whether the attacker is shown nothing but what photos without labels made (FedAffect)."""
    kinds = {name.partition(":")[0] for name in only}
    return isinstance(simulation.method, Labels) and kinds == {"update#2"}


def _truth(
    simulation: Simulation, behind: Sequence[tuple[int, int]], clients: Sequence[int]
) -> Secret:
    """The photos behind what was shared, given as (client, photo), and everybody's portraits."""
    faces, split = simulation.faces, simulation.split
    portraits = tuple(person for client in clients for person in split.clients[client])
    classes = simulation.labels_of(clients[0])
    return Secret(
        images=simulation.images([photo for _, photo in behind]),
        labels=torch.tensor([simulation.label_of(client, photo) for client, photo in behind]),
        people=tuple(faces.people[photo] for _, photo in behind),
        sources=tuple(faces.sources[photo] for _, photo in behind),
        portraits=simulation.images(
            [split.photos_of(c, person)[0] for c in clients for person in split.clients[c]]
        ),
        portrayed=portraits,
        eligible=split.people,
        portrayed_as=tuple(map(classes.index, portraits)) if set(portraits) <= set(classes) else (),
    )


def _statistics(model: nn.Module, images: Tensor) -> Statistics | None:
    """What batch norm sees of the images `[N, C, H, W]`; None of a network without it."""
    with torch.no_grad():
        return batch_statistics(model, images) if batch_norm_layers(model) else None


def _labels_behind(returns: Sequence[ClientReturn]) -> Tensor | None:
    """Of all images behind what was shared, where every client added images to its photos."""
    labels = [r.labels for r in returns if r.labels is not None]
    return torch.cat(labels) if len(labels) == len(returns) else None


def _images_behind(shared: tuple[Shared, ...], photos: int) -> int:
    """Images behind what the server sees: a client may add some, an aggregator adds clients."""
    for payload in shared:
        if isinstance(payload, Update) and payload.examples is not None:
            return payload.examples
        if isinstance(payload, Aggregate):
            return round(sum(payload.weights))
    return photos


def _manipulate(
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
    return replace(simulation, planted=model), replace(state, server=server)


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
