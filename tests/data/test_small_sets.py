import pytest
import torch

from fedaudit.core.errors import DataError
from fedaudit.data.lfw_subset import lfw_subset
from fedaudit.data.synthetic import synthetic
from fedaudit.scoring.embedder import load_embedder


def test_lfw_subset_has_no_identities() -> None:
    faces = lfw_subset(size=32)
    assert faces.images.shape == (100, 3, 32, 32)
    assert not faces.has_identities
    assert len(set(faces.people)) == 100
    assert 0 <= faces.images.min() < faces.images.max() <= 1


def test_synthetic_photos_of_a_person_look_alike() -> None:
    faces = synthetic(people=12, photos=4)
    assert faces.images.shape == (48, 3, 64, 64)
    assert faces.people[:5] == ("p001", "p001", "p001", "p001", "p002")
    vectors = load_embedder().embed(faces.images)
    person = torch.arange(48) // 4
    alike = (vectors @ vectors.T).fill_diagonal_(-1)
    assert (person[alike.argmax(1)] == person).float().mean() > 0.8


def test_synthetic_is_set_by_its_seed() -> None:
    one, same = synthetic(people=3, photos=2), synthetic(people=3, photos=2)
    other = synthetic(people=3, photos=2, seed=1)
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)
    small = synthetic(people=3, photos=2, size=32).images
    assert small.shape[-1] == 32
    assert 0 <= small.min() < small.max() <= 1


@pytest.mark.parametrize("setting", [{"people": 0}, {"photos": 1}, {"spread": 0.0}])
def test_synthetic_refuses_settings(setting: dict[str, int]) -> None:
    with pytest.raises(DataError, match="needed"):
        synthetic(**setting)
