"""Partitions: how training photos are dealt to clients, and so in what clients differ.

people      whose photos they have: each person is at one client
dirichlet   how many photos of each person they have: the smaller α, the more unevenly
lighting    where the light comes from; everybody is at every client
pose        which way faces look; everybody is at every client
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Federation
from fedaudit.core.seeds import seed_for
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.lighting_pose import lighting, pose

MOST_ALPHA = 1e6
"""Beyond it a draw could not be told from an even one."""
JUDGES = {"lighting": lighting, "pose": pose}
"""What orders photos, by partition."""

Photos = tuple[tuple[int, ...], ...]
People = tuple[tuple[str, ...], ...]


def deal(
    faces: FaceSet, train: Mapping[str, Sequence[int]], federation: Federation
) -> tuple[People, Photos]:
    """Deal the training photos `train`, by person, to clients.

    Returns:
        The people of each client, and the photos of each client, those of one person together. No
        photo is at two clients, and every client has one. Where clients share people, each begins
        its list with another person, so that targets taken in this order show different people.

    Raises:
        DataError: The settings do not fit the photos; says what to change.
    """
    clients, people = federation.clients, list(train)
    if faces.classes and federation.partition in JUDGES:
        raise DataError(
            f'partition = "{federation.partition}" orders photos of faces, and {faces.name} shows '
            'none. Write [federation] partition = "people" (images dealt evenly) or "dirichlet".'
        )
    if federation.partition == "people":
        dealt = tuple(tuple(people[c::clients]) for c in range(clients))
        return dealt, tuple(tuple(i for p in mine for i in train[p]) for mine in dealt)
    if federation.partition == "dirichlet":
        place = _dirichlet(faces, train, federation)
    else:
        place = _order(faces, train, federation)
    dealt = tuple(_people(train, place, c, clients) for c in range(clients))
    photos = tuple(
        tuple(i for p in mine for i in train[p] if place[i] == c) for c, mine in enumerate(dealt)
    )
    return dealt, photos


def _people(
    train: Mapping[str, Sequence[int]], place: Mapping[int, int], client: int, clients: int
) -> tuple[str, ...]:
    """Who has a photo at `client`, from the client's own part of the list of people on."""
    people = list(train)
    start = len(people) * client // clients
    rotation = people[start:] + people[:start]
    return tuple(p for p in rotation if any(place[i] == client for i in train[p]))


def _dirichlet(
    faces: FaceSet, train: Mapping[str, Sequence[int]], federation: Federation
) -> dict[int, int]:
    """The client of each photo: each person's are dealt by shares that are drawn from Dir(α).

    A person's shares of the clients are Dirichlet, as in Yurochkin et al. (ICML 2019); Hsu et al.
    (2019, arXiv 1909.06335), who made α the usual measure of heterogeneity, draw each client's
    shares of the classes instead, at equal numbers of photos. The photos, in random order, go to
    the clients at evenly spaced points of the summed shares (systematic sampling): each client's
    number of them is its share up to rounding, and right on average however few there are. A client
    that nothing fell to takes a photo from the one with the most. The draw depends on the set, α
    and what is dealt, not on a study's seeds.
    """
    alpha, clients = federation.alpha, federation.clients
    if not 0 < alpha <= MOST_ALPHA:
        raise DataError(
            f"alpha must lie above 0 and be at most {MOST_ALPHA:g}, not {alpha}: 0.1 gives most "
            "people to one or two clients, 100 deals almost evenly. Change [federation] alpha."
        )
    count = sum(len(photos) for photos in train.values())
    if count < clients:
        raise DataError(
            f"{faces.name}: {count} photos train, fewer than {clients} clients. Raise [federation] "
            "photos or identities, or lower clients or held_out."
        )
    draw = np.random.default_rng(seed_for("dirichlet", faces.name, alpha, clients))
    place: dict[int, int] = {}
    for photos in _by_class(train).values():
        # Shares from logarithms of gamma variables: with a small α the variables underflow.
        uniform = np.log1p(-draw.random(clients))
        logs = np.log(draw.standard_gamma(alpha + 1, clients)) + uniform / alpha
        ends = np.exp(logs - logs.max()).cumsum()
        points = (np.arange(len(photos)) + draw.random()) / len(photos)
        owners = np.searchsorted(ends / ends[-1], points, side="right").clip(max=clients - 1)
        place |= dict(zip(draw.permutation(photos).tolist(), owners.tolist(), strict=True))
    having = Counter(place.values())
    for client in set(range(clients)) - set(having):
        richest, _ = having.most_common(1)[0]
        place[next(i for i in reversed(place) if place[i] == richest)] = client
        having[richest] -= 1
    return place


def _by_class(train: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """Photos by person; pictures that are no faces by their class."""
    groups: dict[str, list[int]] = {}
    for name, photos in train.items():
        groups.setdefault(class_of(name) or name, []).extend(photos)
    return groups


def _order(
    faces: FaceSet, train: Mapping[str, Sequence[int]], federation: Federation
) -> dict[int, int]:
    """The client of each photo: each person's photos in order of light or pose, cut in parts."""
    kind, clients = federation.partition, federation.clients
    fewest = min(len(photos) for photos in train.values())
    if clients > fewest:
        raise DataError(
            f'partition = "{kind}" gives every client photos of everybody, and {fewest} '
            f"photo{'s' if fewest > 1 else ''} a person cannot be dealt to {clients} clients. "
            f"Write [federation] clients = {fewest} or less, or raise photos."
        )
    place: dict[int, int] = {}
    for photos in train.values():
        scores: Tensor = JUDGES[kind](faces.images[list(photos)])
        order = torch.argsort(scores, stable=True).tolist()
        place |= {photos[k]: rank * clients // len(photos) for rank, k in enumerate(order)}
    return place
