"""Who trains, who is held out, and which photos are the gallery."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedaudit.config import Federation
from fedaudit.data.faces import FaceSet
from fedaudit.errors import DataError
from fedaudit.seeds import generator_for


@dataclass(frozen=True)
class Split:
    """Indices into a `FaceSet`.

    Attributes:
        clients: One tuple of people a client; every person trains at one client only.
        train: Photos that train, by person.
        gallery: *Other* photos of everybody in the set, by person; empty without identities.
        held_out: People who never train, for verification accuracy.
    """

    clients: tuple[tuple[str, ...], ...]
    train: Mapping[str, tuple[int, ...]]
    gallery: Mapping[str, tuple[int, ...]]
    held_out: tuple[str, ...]

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone who trains, in the order of the shared head's classes."""
        return tuple(person for client in self.clients for person in client)


def split(faces: FaceSet, federation: Federation) -> Split:
    """Deal people to clients, and photos to training and gallery.

    The order of people is shuffled once, by the set's name, so that it is the same in every run.

    Raises:
        DataError: Fewer people than clients, or too few photos a person.
    """
    photos: dict[str, list[int]] = defaultdict(list)
    for index, person in enumerate(faces.people):
        photos[person].append(index)
    order = list(photos)
    shuffle = torch.randperm(len(order), generator=generator_for("split", faces.name))
    order = [order[i] for i in shuffle]
    held_out = federation.held_out if faces.has_identities else 0
    trained = order[: max(0, len(order) - held_out)]
    if len(trained) < federation.clients:
        raise DataError(
            f"{faces.name} has {len(order)} people: {held_out} are held out, which leaves "
            f"{len(trained)} for {federation.clients} clients. Lower [federation] clients or "
            "held_out, or use a set with more people."
        )
    keep = federation.photos if faces.has_identities else 1
    poor = [person for person, mine in photos.items() if len(mine) <= keep]
    if faces.has_identities and poor:
        raise DataError(
            f"{faces.name}: {poor[0]!r}{f' and {len(poor) - 1} others' if len(poor) > 1 else ''} "
            f"has only {len(photos[poor[0]])} photos, but {keep} train and at least one more is "
            "the gallery. Lower [federation] photos, or add photos."
        )
    gallery = {p: tuple(photos[p][keep:]) for p in order} if faces.has_identities else {}
    return Split(
        clients=tuple(tuple(trained[c :: federation.clients]) for c in range(federation.clients)),
        train={person: tuple(photos[person][:keep]) for person in trained},
        gallery=gallery,
        held_out=tuple(order[len(order) - held_out :]) if held_out else (),
    )


def target_photos(split: Split, target: int, count: int) -> tuple[int, tuple[int, ...]]:
    """Which client is audited as target number `target`, and which of its photos it trains on.

    Targets go round the clients; within a client, photos are taken so that a batch shows different
    people as far as the client has them, and successive targets show other people.

    Returns:
        The client's number, and `count` indices of photos.

    Raises:
        DataError: The client has fewer photos than the batch.
    """
    client = target % len(split.clients)
    people: Sequence[str] = split.clients[client]
    depth = max(len(split.train[person]) for person in people)
    mine = [split.train[p][k] for k in range(depth) for p in people if k < len(split.train[p])]
    if count > len(mine):
        raise DataError(
            f"client {client} has {len(mine)} training photos, fewer than batch_size = {count}. "
            "Lower batch_size, or raise [federation] photos or lower clients."
        )
    start = (target // len(split.clients)) * count
    return client, tuple(mine[(start + k) % len(mine)] for k in range(count))
