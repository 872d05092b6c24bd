"""Split a face set into training photos, gallery and people held out."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

import torch

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Federation
from fedaudit.core.seeds import generator_for
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.partitions import deal


@dataclass(frozen=True)
class Split:
    """Indices into a `FaceSet`.

    Attributes:
        clients: One tuple of people a client; a person may be at several, with other photos.
        photos: One tuple of photos a client: those that it trains on, of each person in turn.
        train: Photos that train, by person, wherever they are.
        gallery: *Other* photos of everybody in the set, by person; empty without identities.
        held_out: People who never train, for verification accuracy; of pictures, half of each
            class, of which the prior-only control's updates are made.
    """

    clients: tuple[tuple[str, ...], ...]
    photos: tuple[tuple[int, ...], ...]
    train: Mapping[str, tuple[int, ...]]
    gallery: Mapping[str, tuple[int, ...]]
    held_out: tuple[str, ...]

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone who trains, in the order of the shared head's classes."""
        return tuple(dict.fromkeys(person for client in self.clients for person in client))

    def photos_of(self, client: int, person: str) -> tuple[int, ...]:
        """The person's photos that this client trains on."""
        return tuple(i for i in self.photos[client] if i in self.train[person])

    @cached_property
    def turns(self) -> tuple[tuple[int, ...], ...]:
        """One tuple of photos a client: everybody's first, then everybody's second, and so on."""
        return tuple(map(self._take_turns, range(len(self.clients))))

    def _take_turns(self, client: int) -> tuple[int, ...]:
        photos = [self.photos_of(client, person) for person in self.clients[client]]
        rounds = zip_longest(*photos)
        return tuple(i for one_each in rounds for i in one_each if i is not None)


def split(faces: FaceSet, federation: Federation) -> Split:
    """Deal photos to training and gallery, and those that train to clients.

    The order of people is shuffled once, by the set's name, so that it is the same in every run.
    Which photos are the gallery does not depend on how the others are dealt.

    Raises:
        DataError: Too few people or photos for the federation's settings.
    """
    photos: dict[str, list[int]] = defaultdict(list)
    for index, person in enumerate(faces.people):
        photos[person].append(index)
    order = list(photos)
    shuffle = torch.randperm(len(order), generator=generator_for("split", faces.name))
    order = [order[i] for i in shuffle]
    held_out = federation.held_out if faces.has_identities else 0
    if faces.classes:
        order, held_out = _halve(order)
    trainees = _training_people(order[: max(0, len(order) - held_out)], faces, federation)
    keep = federation.photos if faces.has_identities else 1
    poor = [person for person, mine in photos.items() if len(mine) <= keep]
    if faces.has_identities and poor:
        raise DataError(
            f"{faces.name}: {poor[0]!r}{f' and {len(poor) - 1} others' if len(poor) > 1 else ''} "
            f"has only {len(photos[poor[0]])} photos, but {keep} train and at least one more is "
            "the gallery. Lower [federation] photos, or add photos."
        )
    gallery = {p: tuple(photos[p][keep:]) for p in order} if faces.has_identities else {}
    train = {person: tuple(photos[person][:keep]) for person in trainees}
    clients, dealt = deal(faces, train, federation)
    return Split(
        clients=clients,
        photos=dealt,
        train=train,
        gallery=gallery,
        held_out=tuple(order[len(order) - held_out :]) if held_out else (),
    )


def _halve(order: list[str]) -> tuple[list[str], int]:
    """Pictures in an order with those that may train first, and how many never train.

    Half of each class never trains, so that no class is without.
    """
    seen: Counter[str] = Counter()
    sides: tuple[list[str], list[str]] = [], []
    for name in order:
        sides[seen[class_of(name)] % 2].append(name)
        seen[class_of(name)] += 1
    return [*sides[0], *sides[1]], len(sides[1])


def fit_federation(
    federation: Federation, *, given: Collection[str], people: Sequence[str]
) -> Federation:
    """Settings that a small set can carry in place of defaults that it cannot.

    Args:
        federation: Of which only defaults change.
        given: Names of settings that were stated, and stay.
        people: Of each photo.

    >>> small = ["anna"] * 4 + ["bert"] * 3 + ["cleo"] * 6 + ["dora"] * 4
    >>> fit = fit_federation(Federation(), given=(), people=small)
    >>> fit.held_out, fit.clients, fit.photos
    (1, 3, 1)
    """
    photos = Counter(people)
    fewest, total = min(photos.values()), len(photos)
    fit = federation
    if "photos" not in given and fewest <= fit.photos:
        fit = replace(fit, photos=max(1, fewest // 2))
    if "held_out" not in given and total < 2 * fit.held_out:  # more held out than trained
        fit = replace(fit, held_out=total // 4)
    if "clients" not in given and total - fit.held_out < fit.clients:
        fit = replace(fit, clients=max(1, total - fit.held_out))
    return fit


def _training_people(candidates: list[str], faces: FaceSet, federation: Federation) -> list[str]:
    """Of those who are not held out, the people of the federation."""
    clients, identities = federation.clients, federation.identities
    alone = federation.partition == "people"
    everybody = len(set(faces.people))
    unit, advice = "people", "held_out, or use a set with more people."
    if faces.classes:
        unit, advice = "images", "use a set with more images (data = { …, images = 1000 })."
    there = (
        f"{faces.name} has {everybody} {unit}: {everybody - len(candidates)} are held out, which "
        f"leaves {len(candidates)}"
    )
    if not candidates or (alone and len(candidates) < clients):
        raise DataError(f"{there} for {clients} clients. Lower [federation] clients or {advice}")
    count = identities * clients if alone else identities
    if count > len(candidates):
        each = f"{identities} at each of {clients} clients" if alone else f"{identities} {unit}"
        raise DataError(
            f"{there}, too few for {each}. Lower [federation] identities{', clients' * alone} or "
            f"{advice}"
        )
    return candidates[: count or len(candidates)]


def require_one_client_each(method: str, split: Split) -> None:
    """Refuse people at several clients, for a method that holds a class to be one client's."""
    if any(class_of(image) for image in split.people):
        raise DataError(
            f"{method} holds a class to be one client's person, and here all clients share the "
            "classes of pictures. Use a method with one head for all, such as fedavg."
        )
    seen: dict[str, int] = {}
    for client, people in enumerate(split.clients):
        for person in people:
            if person in seen:
                raise DataError(
                    f"{method} takes the people of two clients for different people, and {person!r}"
                    f" is at client {seen[person]} and at client {client}. Write [federation] "
                    'partition = "people", or use a method with one head for all, such as fedavg.'
                )
            seen[person] = client


def target_photos(
    split: Split, target: int, count: int, total: int | None = None
) -> tuple[int, tuple[int, ...]]:
    """Number of the client that is audited as target number `target`, and its photos.

    Targets go round the clients; within a client, photos are taken so that a batch shows different
    people as far as the client has them, and successive targets show other people.

    Args:
        split: Who has which photos.
        target: Number of the target, from 0.
        count: Photos that are audited.
        total: Photos behind the update, where a defense brings more than `count`: the audited ones
            come first and are the same as without it, so that the two can be compared.

    Raises:
        DataError: The client has fewer photos than the batch.
    """
    total = total or count
    client = target % len(split.clients)
    mine = split.turns[client]
    if total > len(mine):
        demand = f"batch_size = {count}" if total == count else f"the defense's {total}"
        raise DataError(
            f"client {client} has {len(mine)} training photos, fewer than {demand}. "
            f"Lower {'batch_size' if total == count else 'that'}, or raise [federation] photos or "
            "lower clients."
        )
    start = (target // len(split.clients)) * count
    return client, tuple(mine[(start + k) % len(mine)] for k in range(total))
