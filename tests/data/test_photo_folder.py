import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fedaudit.core.errors import DataError
from fedaudit.data.aligned_folder import aligned_photos
from fedaudit.data.face_detector import find_faces
from fedaudit.data.folder import folder, open_photo
from fedaudit.data.pseudonyms import hide_names, pseudonym
from fedaudit.data.subject import by_prominence, may_lead
from fedaudit.files import asset_store


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


def portrait(person: int) -> Image.Image:
    name = f"P{person:03d}/assets/studio_portrait.jpg"
    with Image.open(asset_store.path("openpeople") / name) as photo:
        return photo.resize((500, 500))


def test_phone_photos_are_aligned_and_what_shows_no_face_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path / "cache")
    root = tmp_path / "faces"
    for number, person in ((1, "anna"), (2, "bert")):
        (root / person).mkdir(parents=True)
        for i in (1, 2):
            wide = Image.new("RGB", (1500, 600), "gray")  # three times as wide as high
            wide.paste(portrait(number), (100 * i, 50))
            wide.save(root / person / f"{i}.jpg")
    two = Image.new("RGB", (1500, 600), "gray")
    two.paste(portrait(1), (50, 50))
    two.paste(portrait(2).resize((300, 300)), (900, 50))
    exif = two.getexif()
    exif[0x0112] = 8
    two.rotate(-90, expand=True).save(root / "anna" / "3.jpg", exif=exif)
    photo(root / "bert" / "4.png", (90, 60))
    (root / "bert" / "5.dng").write_bytes(b"a phone's own kind")
    portrait(2).rotate(90).save(root / "bert" / "6.png")
    tiny = Image.new("RGB", (400, 400), "gray")
    tiny.paste(portrait(2).resize((36, 36)), (180, 180))
    tiny.save(root / "bert" / "7.png")
    faces = folder(path=str(root), size=32, align=True)
    shown = ("anna/1.jpg", "anna/2.jpg", "anna/3.jpg", "bert/1.jpg", "bert/2.jpg", "bert/6.png")
    assert faces.sources == shown
    assert faces.left_out == (
        ("bert/4.png", "shows no face"),
        ("bert/5.dng", "cannot be read"),
        ("bert/7.png", "shows only tiny faces"),
    )
    (note,) = faces.notes
    assert "6 of 9; left out: 1 shows no face, 1 cannot be read, 1 shows only tiny" in note
    assert "1 lay on a side" in note
    first, second, third, other, _, sideways = faces.images
    assert (other - sideways).abs().mean() < 0.05
    assert (first - second).abs().mean() < 0.03  # wherever the face is in the photo
    assert (first - third).abs().mean() < 0.06  # the larger of two
    assert (first - other).abs().mean() > 0.08
    assert folder(path=str(root), size=32, align=True).images.equal(faces.images)  # as kept
    hidden = hide_names(faces, b"key")
    assert [why for _, why in hidden.left_out] == [why for _, why in faces.left_out]
    assert {who for who, _ in hidden.left_out} == {pseudonym("bert", b"key")}
    (root / "bert" / "1.jpg").unlink()
    (root / "bert" / "2.jpg").unlink()
    rest = folder(path=str(root), size=32, align=True)
    assert rest.sources == shown[:3]
    assert rest.images.equal(faces.images[:3])
    assert rest.left_out[-1] == ("bert/6.png", "is its person's only photo that shows a face")
    shutil.rmtree(root / "anna")
    with pytest.raises(DataError, match=r"of nobody two photos .*: bert/4\.png shows no"):
        folder(path=str(root), align=True)


@pytest.mark.parametrize("width", [1400, 200])
def test_a_large_photo_gives_the_face_that_all_of_its_pixels_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path / "cache")
    scene = Image.new("RGB", (2400, 2600), "gray")
    scene.paste(portrait(1).resize((width, width)), (500, 600))
    files = {kind: tmp_path / f"1.{kind}" for kind in ("jpg", "bmp")}
    for file in files.values():
        scene.save(file, quality=98)
    reads: list[tuple[Path, int]] = []

    def read(file: Path, least: int) -> Image.Image:
        reads.append((file, least))
        return open_photo(file, least)

    half, whole = aligned_photos(files, 224, str(tmp_path), read)[0]
    assert open_photo(files["jpg"], 1200).size == (1200, 1300)
    assert (half - whole).abs().mean() < 0.01
    assert ((files["jpg"], 0) in reads) is (width == 200)


def test_deep_transparent_and_moving_pictures_are_read(root: Path) -> None:
    deep = np.full((40, 40), 32768, np.uint16)
    Image.fromarray(deep).save(root / "anna" / "deep.png")
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(root / "anna" / "clear.png")
    Image.new("P", (40, 40)).save(root / "anna" / "moving.gif")
    faces = folder(path=str(root), size=16)
    shown = dict(zip(faces.sources, faces.images.mean((1, 2, 3)).tolist(), strict=True))
    assert shown["anna/deep.png"] == pytest.approx(0.5, abs=0.01)
    assert shown["anna/clear.png"] == 1
    assert shown["anna/moving.gif"] == 0


def test_all_photos_that_cannot_be_used_are_named_at_once(root: Path) -> None:
    (root / "anna" / "4.dng").write_bytes(b"a phone's own kind")
    photo(root / "bert" / "9.png", (100, 49))
    with pytest.raises(DataError, match=r"(?s)2 photos .*4\.dng is of a kind .*9\.png is 100"):
        folder(path=str(root))


def test_an_iphones_photos_are_read_or_the_extra_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    with Image.open(root / "anna" / "1.png") as png:
        png.save(root / "anna" / "4.HEIC", quality=90)
    first, *_, last = folder(path=str(root), size=16).images[:4]
    assert (first - last).abs().max() < 0.05
    (root / "anna" / "4.HEIC").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"4\.HEIC cannot be read"):
        folder(path=str(root))
    monkeypatch.setattr("fedaudit.data.heic.reads_heic", lambda: False)
    with pytest.raises(DataError, match=r"4\.HEIC is HEIC\. .*fedaudit\[heic\]"):
        folder(path=str(root))


def test_who_is_in_focus_near_the_middle_is_the_subject() -> None:
    """A passer-by before the camera is larger, and out of focus; another stands far behind."""
    scene = Image.new("RGB", (1600, 1200), "gray")
    blurred = portrait(2).resize((900, 900)).filter(ImageFilter.GaussianBlur(9))
    scene.paste(blurred, (850, 200))
    scene.paste(portrait(3).resize((160, 160)), (60, 60))
    scene.paste(portrait(1), (450, 400))
    faces = find_faces(scene)
    assert len(faces) == 3
    assert faces[0].box[0] > 850
    subject, *others = by_prominence(scene, faces)
    assert 450 < subject.box[0] < subject.box[2] < 950
    assert set(others) == set(faces) - {subject}
    near, _, far = faces
    assert may_lead(scene, subject, near)
    assert not may_lead(scene, far, subject)
