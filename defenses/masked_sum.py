"""A sum of vectors of which the server sees the sum alone (Bonawitz et al., CCS 2017).

Every number is one of the ring of integers modulo 2³², held as int32, whose additions wrap around.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.errors import ConfigError
from fedaudit.defenses.key_agreement import agreed, public_key
from fedaudit.defenses.secret_sharing import random_bytes, recover, share


@dataclass(frozen=True)
class Keys:
    """What one client drew for a round; `secret` and `seed` leave it only as shares.

    Attributes:
        secret: Of its key pair, from which it agrees on a mask with every other client.
        seed: Of its own mask.
        public: What it publishes.
        secret_shares: Of `secret`, one a client. Clients send them to each other encrypted; here
            they are handed over.
        seed_shares: Of `seed`.
    """

    secret: bytes
    seed: bytes
    public: bytes
    secret_shares: tuple[int, ...]
    seed_shares: tuple[int, ...]


def draw_keys(clients: int, threshold: int, generator: torch.Generator) -> tuple[Keys, ...]:
    """Rounds 0 and 1: every client draws its keys and shares them among all."""
    made = []
    for _ in range(clients):
        secret, seed = (random_bytes(32, generator) for _ in range(2))
        shares = (tuple(share(s, threshold, clients, generator)) for s in (secret, seed))
        made.append(Keys(secret, seed, public_key(secret), *shares))
    return tuple(made)


def expand(seed: bytes, count: int) -> Tensor:
    """`[count]` int32, uniform over the ring: SHAKE-128 of the seed."""
    return torch.frombuffer(bytearray(hashlib.shake_128(seed).digest(4 * count)), dtype=torch.int32)


def mask(vectors: Mapping[int, Tensor], keys: tuple[Keys, ...]) -> dict[int, Tensor]:
    """Round 2: what each client sends in place of its vector.

    A client adds its own mask, the mask that it agreed on with every client of a higher number, and
    subtracts those with clients of a lower one: in the sum over all clients these cancel.

    Args:
        vectors: `[n]` int32 by number of the client; of those that still take part.
        keys: Of everybody, those who have dropped out since among them.
    """
    masked = {
        k: vector + expand(keys[k].seed, len(vector)) for k, vector in sorted(vectors.items())
    }
    for client, vector in masked.items():
        for other, theirs in enumerate(keys):
            if other > client or (other < client and other not in masked):
                sign = 1 if other > client else -1
                pair = expand(agreed(keys[client].secret, theirs.public), len(vector))
                vector.add_(pair, alpha=sign)
                if other in masked:  # agreed on from either side, the mask is the same
                    masked[other].sub_(pair, alpha=sign)
    return masked


def unmask(masked: Mapping[int, Tensor], keys: tuple[Keys, ...], threshold: int) -> Tensor:
    """Round 3: the sum of the vectors, exactly.

    Survivors give the server shares of the *seeds* of those who sent, and of the *secrets* of those
    who did not, never both of one client: with both, its vector would lie open.

    Raises:
        ConfigError: Fewer clients than the threshold are left.
    """
    survivors = sorted(masked)
    if len(survivors) < threshold:
        raise ConfigError(
            f"secure aggregation failed: {len(survivors)} of {len(keys)} clients are left, and "
            f"{threshold} are needed to take the masks off. Lower dropout or threshold, or add "
            "clients."
        )
    answering = survivors[:threshold]
    total = torch.stack([masked[k] for k in survivors]).sum(0, dtype=torch.int32)
    for client, theirs in enumerate(keys):
        if client in masked:
            seed = recover({k: theirs.seed_shares[k] for k in answering})
            total -= expand(seed, len(total))
            continue
        secret = recover({k: theirs.secret_shares[k] for k in answering})
        for other in survivors:
            pair = expand(agreed(secret, keys[other].public), len(total))
            total.sub_(pair, alpha=1 if client > other else -1)
    return total


def encode(values: Iterable[Tensor], weight: int, *, clip: float, bits: int) -> Tensor:
    """Numbers as fixed-point numbers of the ring, times the client's weight, `[n]` int32.

    Args:
        values: In any shapes; clipped to ±`clip`.
        weight: Of the client.
        clip: Range.
        bits: Of one number, its sign among them: 2^(bits − 1) − 1 stands for `clip`.
    """
    flat = torch.cat([value.detach().flatten().double() for value in values]).clamp(-clip, clip)
    return (flat * (steps_of(bits) / clip)).round().long().mul(weight).to(torch.int32)


def decode(total: Tensor, *, clip: float, bits: int) -> Tensor:
    """The numbers that a sum of the ring stands for, `[n]` float64."""
    return total.double() * (clip / steps_of(bits))


def steps_of(bits: int) -> int:
    """The largest fixed-point number of so many bits."""
    return int(2 ** (bits - 1)) - 1
