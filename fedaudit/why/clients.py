"""Which clients lose by being together: sampled Shapley values over the clients of a secure sum.

A coalition is a set of clients whose updates are added up before the server sees them (secure
aggregation). Its value is what the attack gets out of that sum: SSIM above the prior-only control,
added up over the coalition's images; and beside it the number of faces that are re-identified.
A client's Shapley value is what it adds to the leakage of a sum of clients who join in random
order: how much of the common leakage is its doing. `alone` is what its own update gives without a
sum, `together` what the sum of everybody gives away of its own photos; alone − together is what the
sum hides, and a client with a negative one loses by being together.

Each pair of orders takes other photos of every client, so that the intervals hold the chance of
both. The control of a coalition is as many of the images that the attack makes of a sum of
invented people's updates as the coalition has, paired with its originals in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError, ConfigError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Aggregate, Update
from fedaudit.federation.abilities import Aggregates
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import without_aggregator
from fedaudit.reports.explanation import Game, Player
from fedaudit.why.explained_scenario import Measurement, Subject
from fedaudit.why.leaks import Leak
from fedaudit.why.shapley import coalitions_of, interval, order_pairs, sample_values

PAIRS = 3
"""Pairs of orders."""


@dataclass(frozen=True)
class Share:
    """What a sum gave away of one client: SSIM above the control, and faces re-identified."""

    ssim: float
    hits: float | None


Shares = dict[int, Share]


def measurements(subject: Subject, *, pairs: int = PAIRS) -> list[Measurement[Shares]]:
    """Every sum that an order of joining passes through, and every client alone."""
    clients = _clients(subject)
    orders = order_pairs(clients, pairs=pairs, generator=_orders(subject))
    singles = [frozenset({client}) for client in clients]
    return [
        _sum(subject, k, coalition)
        for k, both in enumerate(orders)
        for coalition in dict.fromkeys([*singles, *coalitions_of(both[0]), *coalitions_of(both[1])])
        if coalition
    ]


def explain(subject: Subject, *, pairs: int = PAIRS) -> Game:
    """Sampled Shapley values of all clients, with 95 % intervals over pairs of orders.

    Raises:
        ConfigError: One client only.
    """
    clients = _clients(subject)

    def shares(k: int, coalition: frozenset[int]) -> Shares:
        return subject.get(_sum(subject, k, coalition)) if coalition else {}

    def total(k: int, coalition: frozenset[int]) -> float:
        return sum(share.ssim for share in shares(k, coalition).values())

    def hits(k: int, coalition: frozenset[int]) -> float:
        return sum(share.hits or 0.0 for share in shares(k, coalition).values())

    everybody = frozenset(clients)
    orders = partial(_orders, subject)
    ssim = sample_values(clients, lambda k: partial(total, k), pairs=pairs, generator=orders())
    values = sample_values(clients, lambda k: partial(hits, k), pairs=pairs, generator=orders())
    identity = all(s.hits is not None for k in range(pairs) for s in shares(k, everybody).values())
    players = []
    for client in clients:
        alone = [total(k, frozenset({client})) for k in range(pairs)]
        among = [shares(k, everybody)[client].ssim for k in range(pairs)]
        players.append(
            Player(
                name=f"client {client}",
                alone=interval(alone),
                ssim=ssim[client],
                identity=values[client] if identity else None,
                together=interval(among),
                hidden=interval([a - b for a, b in zip(alone, among, strict=True)]),
            )
        )
    return Game(
        players=tuple(players),
        nobody=interval([0.0] * pairs),
        everybody=interval([total(k, everybody) for k in range(pairs)]),
        method=f"sampled, {pairs} antithetic pairs of orders, each on other photos",
        coalitions=len(measurements(subject, pairs=pairs)),
    )


def _clients(subject: Subject) -> list[int]:
    count = len(subject.simulation.split.clients)
    if count < 2:
        raise ConfigError(
            "there is one client, and it is never in company: raise [federation] clients"
        )
    return list(range(count))


def _orders(subject: Subject) -> torch.Generator:
    return generator_for("why orders", subject.scenario.name, subject.seed)


def _sum(subject: Subject, pair: int, coalition: frozenset[int]) -> Measurement[Shares]:
    """What the sum of a coalition gives away of each of its clients, on a pair's photos."""
    members = sorted(coalition)
    name = f"sums/r{subject.scenario.round}/p{pair}/{','.join(map(str, members))}"
    return subject.measurement(name, Shares, partial(_attack, pair=pair, members=members))


def _attack(subject: Subject, pair: int, members: Sequence[int]) -> Shares:
    everybody = subject.once(("pair", pair), lambda: _captures(subject, pair))
    captures = [everybody[c] for c in members]
    seen, secret = sum_up([c.seen for c in captures]), _join(captures)
    # All coalitions of a pair start alike, so that their differences are paired.
    best = subject.best_attack(seen, "sum", pair)
    if best is None:
        raise AttackError("none of the scenario's attacks reads a sum of updates")
    name, result = best
    control = subject.once(("control", pair, name), lambda: _control(subject, name, pair))
    count = len(secret.images)
    fewer = replace(control, images=control.images[:count], labels=result.labels[:count])
    real, base = (subject.judged(secret, name, r) for r in (result, fewer))
    sizes = [len(c.secret.images) if c.secret else 0 for c in captures]
    return dict(zip(members, _split(real, base, sizes), strict=True))


def _captures(subject: Subject, pair: int) -> list[Capture]:
    """Every client's, of this pair's photos."""
    simulation = _apart(subject.simulation)
    count = len(simulation.split.clients)
    return [subject.capture(pair * count + c, simulation=simulation) for c in range(count)]


def _control(subject: Subject, attack: str, pair: int) -> Reconstruction:
    """What the attack makes of the sum that invented people would make in everybody's place."""
    simulation = _apart(subject.simulation)
    count = len(simulation.split.clients)
    others = [subject.invented(pair * count + c, simulation=simulation) for c in range(count)]
    result = subject.attempt(attack, sum_up([c.seen for c in others]), "sum", pair)
    if result is None:
        raise AttackError(f"{attack} cannot be run on the control's sum: there is no control")
    return result


def sum_up(seen: Sequence[Observation]) -> Observation:
    """What a secure aggregator shows the server of these clients, weighed by their images.

    Raises:
        AttackError: A client shares no model update.
    """
    updates = [next((s for s in o.shared if isinstance(s, Update)), None) for o in seen]
    sizes = [o.batch_size or 1 for o in seen]
    parts = [u for u in updates if u is not None]
    if len(parts) < len(updates):
        raise AttackError("a client shares no model update, so there is nothing to add up")
    tensors: dict[str, Tensor] = {
        name: torch.stack([u.tensors[name] * n for u, n in zip(parts, sizes, strict=True)]).sum(0)
        for name in parts[0].tensors
    }
    labels = [o.labels for o in seen if o.labels is not None]
    return replace(
        seen[0],
        shared=(Aggregate(parts[0].kind, tensors, tuple(map(float, sizes))),),
        batch_size=None if seen[0].batch_size is None else sum(sizes),
        labels=torch.cat(labels) if len(labels) == len(seen) else None,
        client="a sum of clients",
        statistics=None,
        earlier=(),
    )


def _apart(simulation: Simulation) -> Simulation:
    """The federation without its own aggregator: here we decide who is added to whom."""
    simulation = replace(simulation, defense=without_aggregator(simulation.defense))
    method = simulation.method
    if isinstance(method, Aggregates) and method.secure:
        return replace(simulation, method=replace(method, secure=False))  # type: ignore[type-var]
    return simulation


def _join(captures: Sequence[Capture]) -> Secret:
    """Everybody's truth, client after client."""
    secrets = [c.secret for c in captures if c.secret is not None]
    return Secret(
        images=torch.cat([s.images for s in secrets]),
        labels=torch.cat([s.labels for s in secrets]),
        people=tuple(p for s in secrets for p in s.people),
        sources=tuple(p for s in secrets for p in s.sources),
    )


def _split(real: Leak, base: Leak, sizes: Sequence[int]) -> list[Share]:
    """Scores of all images, dealt back to the clients that they belong to."""
    shares, start = [], 0
    for size in sizes:
        mine = slice(start, start + size)
        ours, theirs = real.images[mine], base.images[mine]
        hits = [i.reidentified for i in ours]
        shares.append(
            Share(
                ssim=sum(
                    a.metrics.get("ssim", 0.0) - b.metrics.get("ssim", 0.0)
                    for a, b in zip(ours, theirs, strict=True)
                ),
                hits=None if None in hits else float(sum(map(bool, hits))),
            )
        )
        start += size
    return shares
