"""The truth enters a lineup by names and labels alone, never by what resembles whom."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.trial import Lineup
from fedaudit.scoring.identity import Gallery
from fedaudit.scoring.lineup import lineup
from fedaudit.scoring.score import score

PEOPLE = tuple("abcdef")
GALLERY = Gallery(PEOPLE, torch.eye(6), torch.zeros(6), 12, 0.5, 1e-3, 3000, 6, 6, 6)


def _secret(people: str, labels: list[int], eligible: str = "abcd", classes: bool = True) -> Secret:
    return Secret(
        torch.rand((len(people), 1, 4, 4), generator=torch.Generator().manual_seed(1)),
        torch.tensor(labels),
        tuple(people),
        tuple(people),
        portrayed=tuple(dict.fromkeys(people)),
        portrayed_as=tuple(dict.fromkeys(labels)) if classes else (),
        eligible=tuple(eligible),
    )


def _like(secret: Secret, people: str, guessed: list[int]) -> Lineup:
    """Of reconstructions that resemble these people."""
    embeddings = F.one_hot(torch.tensor([PEOPLE.index(p) for p in people]), 6).float()
    images = torch.zeros(len(people), 1, 4, 4)
    found = Reconstruction(images, torch.tensor(guessed))
    shown = lineup(secret, found, GALLERY, embeddings)
    assert shown
    return shown


def test_candidates_are_who_could_have_been_there() -> None:
    shown = _like(_secret("ba", [1, 0]), "ab", [0, 1])
    assert (shown.people, shown.present) == (tuple("abcd"), ("b", "a"))
    anybody = _like(_secret("b", [1], eligible=""), "a", [0])
    assert anybody.people == PEOPLE


def test_a_place_is_known_by_its_label() -> None:
    shown = _like(_secret("ab", [7, 9]), "ba", [9, 7])
    assert shown.cosines == ((1, 0, 0, 0), (0, 1, 0, 0))


def test_the_label_decides_against_the_looks() -> None:
    shown = _like(_secret("ab", [7, 9]), "ba", [7, 9])
    assert shown.cosines == ((0, 1, 0, 0), (1, 0, 0, 0))


@pytest.mark.parametrize("guessed", [[-1, -1], [3, 3]])
def test_without_its_label_all_of_the_update_stand_for_it(guessed: list[int]) -> None:
    shown = _like(_secret("ab", [7, 9]), "bc", guessed)
    assert shown.cosines == ((0, 1, 1, 0),) * 2


def test_labels_that_are_no_people_tell_no_places() -> None:
    shown = _like(_secret("ab", [0, 1], classes=False), "ba", [0, 1])
    assert shown.cosines == ((1, 1, 0, 0),) * 2


def test_photos_of_one_person_are_one_place() -> None:
    shown = _like(_secret("aba", [7, 9, 7]), "cad", [7, 9, 7])
    assert shown.present == ("a", "b")
    assert shown.cosines == ((0, 0, 1, 1), (1, 0, 0, 0))


def test_images_that_are_not_audited_have_no_place() -> None:
    secret = _secret("ab", [7, 9])
    only = Secret(**{**vars(secret), "audited": 1})
    assert _like(only, "ab", [7, 9]).present == ("a",)


def test_templates_are_of_everybody_whom_the_client_has() -> None:
    secret = _secret("ab", [7, 9])
    found = Reconstruction(torch.zeros(1, 1, 4, 4), torch.tensor([9]), of="people")
    shown = lineup(secret, found, GALLERY, torch.eye(6)[1:2])
    assert shown
    assert shown.present == ("a", "b")
    assert shown.cosines == ((0, 1, 0, 0),) * 2


def test_nobody_to_identify() -> None:
    found = Reconstruction(torch.zeros(1, 1, 4, 4), torch.tensor([-1]))
    assert lineup(_secret("x", [0]), found, GALLERY, torch.eye(6)[:1]) is None


def test_embeddings_are_centered_as_probes_are() -> None:
    found = Reconstruction(torch.zeros(1, 1, 4, 4), torch.tensor([0]))
    center = torch.tensor([0.0, 5, 0, 0, 0, 0])
    moved = Gallery(PEOPLE, torch.eye(6), center, 12, 0.5, 1e-3, 3000, 6, 6, 6)
    shown = lineup(_secret("a", [0]), found, moved, center[None] + 0.5 * torch.eye(6)[:1])
    assert shown
    assert shown.cosines == ((1, 0, 0, 0),)


def test_whether_the_judge_knows_the_originals_is_asked_of_them() -> None:
    """By the first judge's threshold, against other photos; the reconstruction plays no part."""
    gallery = Gallery(
        people=("ada", "bob"),
        templates=torch.eye(2),
        center=torch.zeros(2),
        photos=4,
        threshold=0.5,
        fmr=0.1,
        impostor_pairs=100,
        ceiling_hits=2,
        ceiling_first=2,
        ceiling_n=2,
    )
    photos = torch.stack([torch.full((1, 16, 16), v) for v in (0.2, 0.8)])
    secret = Secret(photos, torch.tensor([0, 1]), ("ada", "bob"), ("ada", "bob"))
    found = Reconstruction(torch.zeros(2, 1, 16, 16), torch.tensor([0, 1]))

    def embed(images: Tensor) -> Tensor:  # ada is dark, everybody else resembles ada, too
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    scores, _, _ = score(secret, found, gallery=gallery, embed=embed, originals=embed)
    assert [image.original for image in scores] == [True, False]
    plain, _, _ = score(secret, found, gallery=gallery, embed=embed)
    assert [image.original for image in plain] == [None, None]
