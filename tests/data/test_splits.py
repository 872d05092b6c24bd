"""Who trains where: a photo at one client, gallery and held-out photos never trained on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Federation
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split, split, target_photos


def face_set(counts: list[int], *, has_identities: bool = True) -> FaceSet:
    people = tuple(f"p{i}" for i, n in enumerate(counts) for _ in range(n))
    return FaceSet(
        name="toy",
        images=torch.zeros(len(people), 3, 2, 2),
        people=people,
        sources=tuple(map(str, range(len(people)))),
        terms="",
        has_identities=has_identities,
    )


@given(
    counts=st.lists(st.integers(3, 6), min_size=6, max_size=20),
    clients=st.integers(1, 4),
    held_out=st.integers(0, 2),
    photos=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_nobody_is_in_two_places(
    counts: list[int], clients: int, held_out: int, photos: int
) -> None:
    faces = face_set(counts)
    dealt = split(faces, Federation(clients=clients, held_out=held_out, photos=photos))
    assert len(dealt.clients) == clients
    assert len(dealt.held_out) == held_out
    everyone = [*dealt.people, *dealt.held_out]
    assert sorted(everyone) == sorted(set(faces.people))  # each once, at one client or held out
    sizes = [len(client) for client in dealt.clients]
    assert max(sizes) - min(sizes) <= 1
    assert set(dealt.train) == set(dealt.people)
    assert set(dealt.gallery) == set(faces.people)
    for person in faces.people:
        train, gallery = set(dealt.train.get(person, ())), set(dealt.gallery[person])
        assert gallery
        assert not train & gallery
        assert all(faces.people[i] == person for i in train | gallery)
        assert len(train) == (photos if person in dealt.people else 0)


def test_every_run_deals_alike_and_another_set_otherwise() -> None:
    faces, federation = face_set([4] * 20), Federation(clients=2, held_out=2, photos=2)
    assert split(faces, federation) == split(faces, federation)
    other = split(replace(faces, name="other"), federation)
    assert other.clients != split(faces, federation).clients


PARTITIONS = ("people", "dirichlet", "lighting", "pose")


@given(
    partition=st.sampled_from(PARTITIONS),
    clients=st.integers(1, 4),
    photos=st.integers(4, 5),
    identities=st.integers(0, 2),
    alpha=st.floats(1e-6, 1e6),
)
@settings(max_examples=80, deadline=None)
def test_every_training_photo_is_at_one_client(
    partition: Any, clients: int, photos: int, identities: int, alpha: float
) -> None:
    faces = face_set([6] * 12)
    federation = Federation(
        clients=clients,
        held_out=2,
        photos=photos,
        partition=partition,
        alpha=alpha,
        identities=identities,
    )
    dealt = split(faces, federation)
    placed = [i for client in dealt.photos for i in client]
    assert sorted(placed) == sorted(i for mine in dealt.train.values() for i in mine)
    assert len(placed) == len(set(placed))
    assert all(dealt.photos)
    for client, people in enumerate(dealt.clients):
        assert set(people) == {faces.people[i] for i in dealt.photos[client]}
        ordered = tuple(i for person in people for i in dealt.photos_of(client, person))
        assert dealt.photos[client] == ordered
    assert len(set(dealt.people)) == len(dealt.people)
    assert set(dealt.people) == set(dealt.train)
    expected = identities * (clients if partition == "people" else 1)
    assert len(dealt.people) == (expected or 10)
    # Who is held out and which photos are the gallery do not depend on how the rest is dealt.
    plain = split(faces, Federation(clients=1, held_out=2, photos=photos))
    assert dealt.held_out == plain.held_out
    assert dealt.gallery == plain.gallery


@pytest.mark.parametrize("partition", PARTITIONS)
def test_targets_train_where_they_are_and_show_different_people(partition: Any) -> None:
    faces = face_set([7] * 22)
    federation = Federation(clients=5, held_out=2, photos=5, partition=partition, alpha=100.0)
    dealt = split(faces, federation)
    targets = [target_photos(dealt, target, 1) for target in range(20)]
    for client, photos in targets:
        assert set(photos) <= set(dealt.photos[client])
    people = {faces.people[photo] for _, (photo,) in targets}
    assert len(people) >= (16 if partition == "dirichlet" else 20)


def test_a_set_without_identities_trains_single_photos() -> None:
    dealt = split(face_set([1] * 12, has_identities=False), Federation(clients=3))
    assert dealt.held_out == ()
    assert dealt.gallery == {}
    assert [len(client) for client in dealt.clients] == [4, 4, 4]


@pytest.fixture
def dealt() -> Split:
    return split(face_set([5] * 14), Federation(clients=3, held_out=2, photos=3))


def test_targets_go_round_the_clients_and_through_their_people(dealt: Split) -> None:
    targets = [target_photos(dealt, target, 1) for target in range(12)]
    assert [client for client, _ in targets] == [0, 1, 2] * 4
    photos = [photo for _, (photo,) in targets]
    assert len({photo // 5 for photo in photos}) == 12  # 12 people train: all are attacked once
    more = [target_photos(dealt, target, 1)[1][0] for target in range(36)]
    assert len(set(more)) == 36  # then other photos of them


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_batch_shows_different_people(dealt: Split, count: int) -> None:
    for target in range(6):
        client, photos = target_photos(dealt, target, count)
        people = {f"p{photo // 5}" for photo in photos}
        assert len(photos) == len(people) == count
        assert people <= set(dealt.clients[client])
        assert all(i in dealt.train[f"p{i // 5}"] for i in photos)


def test_a_batch_larger_than_the_client_repeats_people_not_photos(dealt: Split) -> None:
    _, photos = target_photos(dealt, 0, 12)
    assert len(set(photos)) == 12
    with pytest.raises(DataError, match=r"client 0 has 12 training photos.*Lower batch_size"):
        target_photos(dealt, 0, 13)


Refuse = Callable[[], Split]


def _dealt(**settings: Any) -> Split:
    return split(
        face_set([4] * 12), Federation(**({"clients": 5, "held_out": 2, "photos": 3} | settings))
    )


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: split(face_set([4] * 5), Federation(clients=4, held_out=2, photos=1)), "clients"),
        (lambda: split(face_set([4] * 5), Federation(clients=2, held_out=9, photos=1)), "held_out"),
        (lambda: split(face_set([4, 4, 2, 2]), Federation(2, held_out=0, photos=3)), "1 others"),
        (lambda: split(face_set([3, 3]), Federation(1, held_out=0, photos=3)), "only 3 photos"),
        (lambda: _dealt(held_out=12), r"which leaves 0 for 5 clients. Lower .*held_out"),
        (
            lambda: _dealt(identities=3),
            r"leaves 10, too few for 3 at each of 5.*identities, clients",
        ),
        (lambda: _dealt(partition="pose", identities=11), r"too few for 11 people.*Lower"),
        (lambda: _dealt(partition="dirichlet", alpha=0.0), r"alpha must lie above 0.*not 0.0"),
        (lambda: _dealt(partition="dirichlet", alpha=-1.0), r"alpha must lie above 0"),
        (lambda: _dealt(partition="dirichlet", alpha=float("nan")), r"alpha must lie above 0"),
        (lambda: _dealt(partition="dirichlet", alpha=float("inf")), r"at most 1e\+06"),
        (lambda: _dealt(partition="dirichlet", identities=1), r"3 photos train, fewer than 5"),
        (
            lambda: _dealt(partition="lighting"),
            r"3 photos a person.*5 clients.*clients = 3 or less",
        ),
        (lambda: _dealt(partition="pose"), r"partition = \"pose\".*or raise photos"),
    ],
)
def test_what_cannot_be_dealt(attempt: Refuse, message: str) -> None:
    with pytest.raises(DataError, match=message):
        attempt()
