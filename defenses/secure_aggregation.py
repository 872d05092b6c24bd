"""Secure aggregation: the server sees the sum of many clients' updates, and none of them alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.errors import ConfigError
from fedaudit.core.shared import Buffers, MaskedVectors, Shared, Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.defenses.gradient_transforms import Replayed
from fedaudit.defenses.settings import pass_on, public_settings, require
from fedaudit.defenses.weighted_sum import sum_securely

RING = 2**31
"""Numbers are integers modulo 2³², held as int32: sums beyond ± this wrap around."""


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """Sum updates under masks that cancel, so that the server learns their weighted sum alone.

    Bonawitz et al. (CCS 2017), with one aggregator and honest clients, who may drop out: numbers
    modulo 2³² under uniform masks. Key agreement and the shares of seeds are not simulated: neither
    the sum nor what the server sees depends on them. Updates and batch-norm buffers are clipped and
    summed, each weighed by its client's number of images, which travels in clear. Whatever its
    place in a chain, it acts last.

    Guarantee: what one client sends is uniform and says nothing of its update, to a server that
    keeps to the protocol. The sum itself is hidden from nobody and carries no noise: of few clients
    it is a batch of all their photos, and a server that changes the model from client to client
    takes it apart (Pasquini et al., CCS 2022, arXiv 2111.07380, recalled). Rows that one client
    alone changes, such as class embeddings, lie open in any sum
    (`fedaudit.attacks.templates.read_templates`).

    In a study the sum is of one update of every client that is left; the audited client, which
    never drops out, is the target's, and only its photos are scored.

    Args:
        clip: Largest magnitude of one number that is sent, in units of what is sent; > 0. Flower's
            SecAgg+ clips at 8.
        bits: Of one fixed-point number, its sign among them; in [2, 24].
        threshold: Share of the clients that must be left to take the masks off; in (0, 1]. Never
            fewer than two clients.
        dropout: Share of the clients that drop out of each round after masks were agreed on; in
            [0, 1).
    """

    clip: float = 8.0
    bits: int = 20
    threshold: float = 2 / 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.clip > 0, "clip must be > 0", self.clip)
        require(2 <= self.bits <= 24, "bits must lie in [2, 24]", self.bits)
        require(0 < self.threshold <= 1, "threshold must lie in (0, 1]", self.threshold)
        require(0 <= self.dropout < 1, "dropout must lie in [0, 1)", self.dropout)

    __call__ = pass_on  # masks need all clients of the round (`aggregate`)
    keeps_claims = True
    facts = public_settings("secure_aggregation")

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a federation in which too few clients remain after dropout."""
        clients = len(split.clients)
        left = clients - round(self.dropout * clients)
        if left < self.needed(clients):
            raise ConfigError(
                f"secure_aggregation leaves {left} of {clients} clients at dropout = "
                f"{self.dropout:g}, and needs {self.needed(clients)}. Lower dropout or threshold, "
                "or raise [federation] clients."
            )

    def needed(self, clients: int) -> int:
        """Clients that must remain, at least two: the sum of one is its own update."""
        return max(2, math.ceil(self.threshold * clients - 1e-9))

    def survivors(
        self, clients: int, generator: torch.Generator, audited: int | None = None
    ) -> tuple[int, ...]:
        """Numbers of the clients whose masked vectors arrive."""
        order = [k for k in torch.randperm(clients, generator=generator).tolist() if k != audited]
        dropouts = set(order[: round(self.dropout * clients)])
        return tuple(k for k in range(clients) if k not in dropouts)

    def aggregate(
        self, returns: Mapping[int, tuple[Shared, ...]], clients: int, generator: torch.Generator
    ) -> tuple[Shared, ...]:
        """What the server sees: the sum over those who are left, and their masked vectors.

        Raises:
            ConfigError: Fewer clients than the threshold, more images than the ring holds, or
                something shared that is no sum's part.
        """
        for shared in returns.values():
            _require_summable(shared)
        if len(returns) < self.needed(clients):
            raise ConfigError(
                f"secure aggregation failed: {len(returns)} of {clients} clients are left, and "
                f"{self.needed(clients)} are needed to take the masks off. Lower dropout or "
                "threshold, or add clients."
            )
        uploads: list[MaskedVectors] = []

        def add(
            parts: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
        ) -> dict[str, Tensor]:
            vectors, total = masked_sum(self._fixed_point(parts, weights), generator)
            uploads.append(MaskedVectors(vectors))
            mean = decode(total, clip=self.clip, bits=self.bits)
            pieces = torch.split(mean, [value.numel() for value in parts[0].values()])
            return {
                name: piece.view(value.shape).to(value.dtype)
                for (name, value), piece in zip(parts[0].items(), pieces, strict=True)
            }

        sums = sum_securely([returns[client] for client in sorted(returns)], add)
        return (*sums, *uploads)

    def _fixed_point(
        self, parts: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
    ) -> list[Tensor]:
        """What clients put in, one vector of the ring each."""
        if sum(weights) * steps_of(self.bits) >= RING:
            most = (RING - 1) // steps_of(self.bits)
            raise ConfigError(
                f"secure_aggregation: at bits = {self.bits} a sum holds {most} images in all, and "
                f"the clients have {sum(weights):g}. Lower bits."
            )
        return [
            encode(part.values(), int(weight), clip=self.clip, bits=self.bits)
            for part, weight in zip(parts, weights, strict=True)
        ]

    def replay(self, count: int) -> Replayed:
        """Nothing is done to gradients: an attacker takes the mean over all clients' images."""
        return Replayed()


def _require_summable(shared: Sequence[Shared]) -> None:
    kinds = [type(payload) for payload in shared]
    odd = [k.__name__ for k in kinds if k not in (Update, Buffers)]
    if odd or kinds.count(Update) != 1:
        what = odd[0] if odd else f"{kinds.count(Update)} updates"
        raise ConfigError(
            f"secure_aggregation sums one update a client, and the clients share {what}. Use "
            "fedavg or fedsgd without a defense that shares more, or a method that has an "
            'aggregator of its own, such as {name = "fedgc", secure = true}.'
        )


def masked_sum(vectors: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What clients send in place of `vectors [n]` int32 each, and what the server makes of it.

    Each client adds a mask that is uniform over the ring, and the sum of all masks is taken off the
    sum.

    Returns:
        `[K, n]` int32, uniform whatever the vectors are; and their sum `[n]` int32, exact.
    """
    plain = torch.stack(list(vectors))
    masks = torch.randint(-(2**31), 2**31, plain.shape, dtype=torch.int32, generator=generator)
    uploads = plain + masks
    return uploads, uploads.sum(0, dtype=torch.int32) - masks.sum(0, dtype=torch.int32)


def encode(values: Iterable[Tensor], weight: int, *, clip: float, bits: int) -> Tensor:
    """Numbers as fixed-point numbers of the ring, times the client's weight, `[n]` int32.

    They are clipped to ±`clip`, for which 2^(bits − 1) − 1 stands.
    """
    flat = torch.cat([value.detach().flatten().double() for value in values]).clamp(-clip, clip)
    return (flat * (steps_of(bits) / clip)).round().long().mul(weight).to(torch.int32)


def decode(total: Tensor, *, clip: float, bits: int) -> Tensor:
    """The numbers that a sum of the ring stands for, `[n]` float64."""
    return total.double() * (clip / steps_of(bits))


def steps_of(bits: int) -> int:
    """The largest fixed-point number of so many bits."""
    return int(2 ** (bits - 1)) - 1
