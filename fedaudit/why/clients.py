"""Which clients lose by being together: sampled Shapley values over the clients of a secure sum.

A coalition is a set of clients whose updates are added up before the server sees them (secure
aggregation). Its value is what the attack gets out of that sum: SSIM above the prior-only control,
added up over the coalition's images; and beside it the number of faces that are re-identified.
A client's Shapley value is what it adds to the leakage of a sum of clients who join in random
order: how much of the common leakage is its doing. `alone` is what its own update gives without a
sum, `together` what the sum of everybody gives away of its own photos; alone − together is what the
sum hides, and a client with a negative one loses by being together.

Each pair of orders takes other photos of every client, so that the intervals hold the chance of
both. The control of a coalition is as many of the images that the attack makes of noise in place of
everybody's sum as the coalition has, paired with its originals in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import TypeAdapter
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
from fedaudit.why.explanation_results import Game, Player
from fedaudit.why.shapley import interval, sampled
from fedaudit.why.subject import Leak, Subject

PAIRS = 3
"""Pairs of orders."""


@dataclass(frozen=True)
class Share:
    """What a sum gave away of one client: SSIM above the control, and faces re-identified."""

    ssim: float
    hits: float | None


Shares = dict[int, Share]


def explain(subject: Subject, *, pairs: int = PAIRS) -> Game:
    """Sampled values of all clients, with 95 % intervals over pairs of orders.

    Raises:
        ConfigError: One client only.
    """
    count = len(subject.simulation.split.clients)
    if count < 2:
        raise ConfigError(
            "there is one client, and it is never in company: raise [federation] clients"
        )
    clients = list(range(count))
    games = [_Round(subject, _apart(subject.simulation), k) for k in range(pairs)]
    steps = pairs * (3 * count - 3)  # two orders, and everybody alone
    asked: set[tuple[int, frozenset[int]]] = set()

    def shares(k: int, coalition: frozenset[int]) -> Shares:
        if coalition:
            asked.add((k, coalition))
            subject.tell("clients", min(len(asked), steps) - 1, steps)
        return games[k].shares(coalition)

    def total(k: int, coalition: frozenset[int]) -> float:
        return sum(share.ssim for share in shares(k, coalition).values())

    def hits(k: int, coalition: frozenset[int]) -> float:
        return sum(share.hits or 0.0 for share in shares(k, coalition).values())

    def orders() -> torch.Generator:
        return generator_for("why orders", subject.scenario.name, subject.seed)

    everybody = frozenset(clients)
    ssim = sampled(clients, lambda k: lambda s: total(k, s), pairs=pairs, generator=orders())
    counted = sampled(clients, lambda k: lambda s: hits(k, s), pairs=pairs, generator=orders())
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
                identity=counted[client] if identity else None,
                together=interval(among),
                hidden=interval([a - b for a, b in zip(alone, among, strict=True)]),
            )
        )
    subject.tell("clients", steps, steps)
    return Game(
        players=tuple(players),
        nobody=interval([0.0] * pairs),
        everybody=interval([total(k, everybody) for k in range(pairs)]),
        method=f"sampled, {pairs} antithetic pairs of orders, each on other photos",
        coalitions=len(asked),
    )


class _Round:
    """One pair's photos: every client's capture, attacked in sums."""

    def __init__(self, subject: Subject, simulation: Simulation, number: int) -> None:
        self.subject, self.simulation, self.number = subject, simulation, number
        self.count = len(simulation.split.clients)
        self._captures: list[Capture] = []
        self._control: Reconstruction | None = None

    def shares(self, coalition: frozenset[int]) -> Shares:
        """What the sum of the coalition gives away of each of its clients."""
        if not coalition:
            return {}
        members = sorted(coalition)
        kind: TypeAdapter[Shares] = TypeAdapter(Shares)
        round_ = self.subject.scenario.round
        key = f"sum/r{round_}/p{self.number}/{','.join(map(str, members))}"
        return self.subject.pieces.get(key, kind, lambda: self._attack(members))

    def _attack(self, members: Sequence[int]) -> Shares:
        chosen = [self.captures[c] for c in members]
        seen, secret = summed([c.seen for c in chosen]), _joined(chosen)
        # All coalitions of a pair start alike, so that their differences are paired.
        struck = self.subject.strike(seen, "sum", self.number)
        if struck is None:
            raise AttackError("none of the scenario's attacks reads a sum of updates")
        name, made = struck
        control = self.control(name)
        fewer = replace(
            control,
            images=control.images[: len(secret.images)],
            labels=made.labels[: len(secret.images)],
        )
        found, base = (self.subject.judged(secret, name, r) for r in (made, fewer))
        sizes = [len(c.secret.images) if c.secret else 0 for c in chosen]
        return dict(zip(members, _split(found, base, sizes), strict=True))

    @property
    def captures(self) -> list[Capture]:
        """Every client's, of this pair's photos."""
        if not self._captures:
            self._captures = [
                self.subject.capture(self.number * self.count + c, simulation=self.simulation)
                for c in range(self.count)
            ]
        return self._captures

    def control(self, attack: str) -> Reconstruction:
        """What the attack makes of noise in place of everybody's sum."""
        if self._control is None:
            seen = summed([c.seen for c in self.captures])
            key = ("sum", self.number)
            base = self.subject.control(attack, seen, key, key)
            if base is None:
                raise AttackError(f"{attack} cannot be run on noise: there is no control")
            self._control = base[1]
        return self._control


def summed(seen: Sequence[Observation]) -> Observation:
    """What a secure aggregator shows the server of these clients, weighed by their images.

    Raises:
        AttackError: A client shares no model update.
    """
    updates = [next((s for s in o.shared if isinstance(s, Update)), None) for o in seen]
    sizes = [o.batch_size or 1 for o in seen]
    found = [u for u in updates if u is not None]
    if len(found) < len(updates):
        raise AttackError("a client shares no model update, so there is nothing to add up")
    tensors: dict[str, Tensor] = {
        name: torch.stack([u.tensors[name] * n for u, n in zip(found, sizes, strict=True)]).sum(0)
        for name in found[0].tensors
    }
    labels = [o.labels for o in seen if o.labels is not None]
    return replace(
        seen[0],
        shared=(Aggregate(found[0].kind, tensors, tuple(map(float, sizes))),),
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


def _joined(captures: Sequence[Capture]) -> Secret:
    """Everybody's truth, client after client."""
    secrets = [c.secret for c in captures if c.secret is not None]
    return Secret(
        images=torch.cat([s.images for s in secrets]),
        labels=torch.cat([s.labels for s in secrets]),
        people=tuple(p for s in secrets for p in s.people),
        sources=tuple(p for s in secrets for p in s.sources),
    )


def _split(found: Leak, base: Leak, sizes: Sequence[int]) -> list[Share]:
    """Scores of all images, dealt back to the clients that they belong to."""
    shares, start = [], 0
    for size in sizes:
        mine = slice(start, start + size)
        ours, theirs = found.images[mine], base.images[mine]
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
