from pathlib import Path

import pytest
import torch
from PIL import Image

from fedaudit.core.errors import DataError
from fedaudit.data.folder import folder


def photo(path: Path, size: tuple[int, int] = (40, 50), color: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for person, color in (("anna", "red"), ("bert", "blue")):
        for i in (1, 2, 3):
            photo(tmp_path / "faces" / person / f"{i}.png", color=color)
    return tmp_path / "faces"


def test_a_folder_a_person(root: Path) -> None:
    (root / "anna" / "notes.txt").write_text("not a photo")
    (root / "readme.txt").write_text("neither")
    faces = folder(path=str(root), size=32)
    assert faces.images.shape == (6, 3, 32, 32)
    assert faces.people == ("anna",) * 3 + ("bert",) * 3
    assert faces.sources[0] == "anna/1.png"
    assert torch.equal(faces.images[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert not faces.public


def test_turned_photos_are_set_upright(root: Path) -> None:
    turned = Image.new("RGB", (40, 40), "white")
    turned.paste("black", (0, 0, 20, 40))  # its left half; the bottom one after a turn
    exif = turned.getexif()
    exif[0x0112] = 8
    turned.save(root / "anna" / "0.png", exif=exif)
    first = folder(path=str(root), size=40).images[0]
    assert first[:, 5].max() == 1
    assert first[:, 35].max() == 0


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        folder(path=str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        folder(path=str(tmp_path / "file"))


def test_photos_without_person_folders(tmp_path: Path) -> None:
    photo(tmp_path / "1.png")
    with pytest.raises(DataError, match="no person folders"):
        folder(path=str(tmp_path))


def test_people_with_one_photo_are_named(root: Path) -> None:
    photo(root / "cleo" / "1.png")
    (root / "dora").mkdir()
    with pytest.raises(DataError, match="cleo, dora"):
        folder(path=str(root))


def test_many_such_people_are_counted(root: Path) -> None:
    for i in range(8):
        photo(root / f"z{i}" / "1.png")
    with pytest.raises(DataError, match="z4 and 3 more"):
        folder(path=str(root))


def test_unreadable_photo_is_named(root: Path) -> None:
    (root / "bert" / "4.jpg").write_bytes(b"this is no JPEG")
    with pytest.raises(DataError, match=r"4\.jpg cannot be read"):
        folder(path=str(root))
    whole = (root / "bert" / "1.png").read_bytes()
    (root / "bert" / "4.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"4\.jpg cannot be read"):
        folder(path=str(root))


@pytest.mark.parametrize("size", [(15, 20), (8, 8), (100, 49)])
def test_not_face_sized_is_named(root: Path, size: tuple[int, int]) -> None:
    photo(root / "bert" / "9.png", size)
    with pytest.raises(DataError, match=r"9\.png is .* not face-sized"):
        folder(path=str(root))


def test_nested_folders_ask_for_the_level(root: Path) -> None:
    with pytest.raises(DataError, match="one level too high"):
        folder(path=str(root.parent))
