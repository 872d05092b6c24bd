"""Small folders in the layout that torchvision expects; nothing is downloaded."""

from pathlib import Path

import pytest
from PIL import Image

from fedaudit.core.errors import DataError
from fedaudit.core.registry import create
from fedaudit.data.torchvision_sets import celeba, lfw_people


@pytest.mark.parametrize(("name", "below"), [("lfw_people", "lfw-py"), ("celeba", "celeba")])
def test_absent_files_say_what_to_do(tmp_path: Path, name: str, below: str) -> None:
    with pytest.raises(DataError, match=rf"{below}(.|\n)*download = true"):
        create("data", name, {"root": str(tmp_path)})


class _Lfw:
    """Stands in for torchvision's LFWPeople, which checks the real archive's MD5."""

    def __init__(self, root: str, **_: object) -> None:
        counts = {"Ann": 3, "Bob": 1, "Cy": 2}
        self.data = [
            f"{root}/lfw_funneled/{name}/{name}_{i:04d}.jpg"
            for name, n in counts.items()
            for i in range(1, n + 1)
        ]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        photo = Image.new("RGB", (250, 250), "black")
        photo.paste("white", (60, 60, 190, 190))
        return photo, 0


def test_lfw_takes_the_most_photographed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.LFWPeople", _Lfw)
    faces = lfw_people(root="data", size=32, people=5, photos=2)
    assert faces.people == ("Ann", "Ann", "Cy", "Cy")
    assert faces.sources[0] == "Ann/Ann_0001.jpg"
    assert faces.images.shape == (4, 3, 32, 32)
    assert faces.images.min() > 0.99  # the middle half, where the face is
    assert set(lfw_people(root="data", people=1).people) == {"Ann"}


def test_nobody_with_two_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.LFWPeople", _Lfw)
    with pytest.raises(DataError, match="at least one person and two photos"):
        lfw_people(root="data", people=0)


class _CelebA(_Lfw):
    identity = (7, 7, 3)
    filename = ("1.jpg", "2.jpg", "3.jpg")


def test_celeba_names_people_by_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CelebA", _CelebA)
    faces = celeba(root="data", size=16)
    assert faces.people == ("celeb7", "celeb7")
    assert faces.sources == ("1.jpg", "2.jpg")
