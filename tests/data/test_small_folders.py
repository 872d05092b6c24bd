"""A small folder gets a federation that it can carry; what is stated stays."""

from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import fit_federation, split
from fedaudit.study import manifest


def faces_of(people: int, photos: int) -> FaceSet:
    names = tuple(f"p{person}" for person in range(people) for _ in range(photos))
    images = torch.zeros(len(names), 3, 16, 16)
    return FaceSet("folder", images, names, tuple(map(str, range(len(names)))), "yours")


@pytest.mark.parametrize("people", [2, 3, 6, 12, 19])
@pytest.mark.parametrize("photos", [2, 4, 7])
def test_defaults_fit_whatever_a_folder_holds(people: int, photos: int) -> None:
    faces = faces_of(people, photos)
    with pytest.raises(DataError):
        split(faces, Federation(clients=people))
    dealt = split(faces, fit_federation(Federation(), given=(), people=faces.people))
    assert 2 <= len(dealt.people) <= people
    assert len(dealt.held_out) == people // 4
    assert all(dealt.gallery[person] for person in dealt.people)


def test_what_is_stated_and_what_fits_stays() -> None:
    large = faces_of(40, 10)
    assert fit_federation(Federation(), given=(), people=large.people) == Federation()
    small = faces_of(4, 3)
    stated = fit_federation(Federation(), given=("photos", "held_out"), people=small.people)
    assert (stated.photos, stated.held_out) == (5, 10)
    assert stated.clients == 1


@pytest.mark.parametrize("people", [2, 3, 6])
def test_a_run_of_a_small_folder_can_be_read_again(people: int, tmp_path: Path) -> None:
    names = faces_of(people, 4).people
    study = Study(
        "small",
        (Scenario("house", attacks=(Choice("subspace_matching"),)),),
        federation=fit_federation(Federation(), given=(), people=names),
    )
    manifest.write(tmp_path, manifest.new(study, "", "redacted"))
    assert manifest.read(tmp_path).study.federation.held_out == people // 4
