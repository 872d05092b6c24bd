"""Who trains where: a person at one client, gallery and held-out photos never trained on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaudit.config import Federation
from fedaudit.data.faces import FaceSet
from fedaudit.data.splits import Split, split, target_photos
from fedaudit.errors import DataError


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


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: split(face_set([4] * 5), Federation(clients=4, held_out=2, photos=1)), "clients"),
        (lambda: split(face_set([4] * 5), Federation(clients=2, held_out=9, photos=1)), "held_out"),
        (lambda: split(face_set([4, 4, 2, 2]), Federation(2, held_out=0, photos=3)), "1 others"),
        (lambda: split(face_set([3, 3]), Federation(1, held_out=0, photos=3)), "only 3 photos"),
    ],
)
def test_what_cannot_be_dealt(attempt: Refuse, message: str) -> None:
    with pytest.raises(DataError, match=message):
        attempt()
