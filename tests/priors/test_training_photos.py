from pathlib import Path

import pytest
import torch
from PIL import Image

from fedaudit.core.errors import ConfigError, DataError, UnknownNameError
from fedaudit.priors.training_photos import from_data, from_folder, with_generated


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (24, 20), shade).save(path)


def test_a_flat_folder(tmp_path: Path) -> None:
    for i in range(10):
        paint(tmp_path / f"{i}.png", 20 * i)
    (tmp_path / "notes.txt").write_text("not a photo")
    paint(tmp_path / ".thumbnails" / "0.png", 255)
    photos = from_folder(tmp_path, size=8, hold_out=0.2)
    assert photos.train.shape == (8, 3, 8, 8)
    assert photos.held_out.shape == (2, 3, 8, 8)
    shades = torch.cat([photos.train, photos.held_out])[:, 0, 0, 0].mul(255).round().int()
    assert sorted(shades.tolist()) == [20 * i for i in range(10)]
    other = from_folder(tmp_path, size=8, hold_out=0.2, seed=1)
    assert not torch.equal(other.held_out, photos.held_out)


def test_whole_people_are_kept_apart(tmp_path: Path) -> None:
    for person in range(10):
        for number in range(2):
            paint(tmp_path / f"p{person}" / f"{number}.png", 20 * person)
    photos = from_folder(tmp_path, size=8, hold_out=0.2)
    shades = [set(x[:, 0, 0, 0].tolist()) for x in (photos.train, photos.held_out)]
    assert [len(s) for s in shades] == [8, 2]
    assert not shades[0] & shades[1]
    assert len(from_folder(tmp_path, size=8, hold_out=0).held_out) == 0


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        from_folder(tmp_path / "absent", size=8)
    paint(tmp_path / "faces" / "1.png", 0)
    with pytest.raises(DataError, match="is a file"):
        from_folder(tmp_path / "faces" / "1.png", size=8)
    with pytest.raises(DataError, match="holds 1 photos"):
        from_folder(tmp_path / "faces", size=8)
    for i in range(8):
        (tmp_path / "faces" / f"bad{i}.jpg").write_bytes(b"\xff\xd8 not a photo")
    with pytest.raises(DataError, match="cannot be read"):
        from_folder(tmp_path / "faces", size=8)


def test_registered_sets() -> None:
    photos = from_data("lfw_subset", size=16)
    assert (photos.name, len(photos.train), len(photos.held_out)) == ("lfw_subset", 90, 10)
    photos = from_data("orl", size=16)
    assert (len(photos.train), len(photos.held_out)) == (360, 40)  # four people
    with pytest.raises(UnknownNameError, match="did you mean 'orl'"):
        from_data("orll", size=16)
    with pytest.raises(ConfigError, match="needs path"):
        from_data("folder", size=16)


def test_people_of_an_audit_are_kept_apart() -> None:
    photos = from_data("orl", size=16, apart=("s1", "s40"))
    assert (len(photos.train), len(photos.held_out)) == (380, 20)
    every = from_data("orl", size=16, hold_out=0).train
    assert torch.equal(photos.held_out, torch.cat([every[:10], every[-10:]]))
    with pytest.raises(DataError, match=r"no s41, somebody to keep apart\. It has s1, s10"):
        from_data("orl", size=16, apart=("s1", "somebody", "s41"))


def test_half_of_a_draw_is_generated(tmp_path: Path) -> None:
    for i in range(8):
        paint(tmp_path / f"{i}.png", 255)
    photos = with_generated(from_folder(tmp_path, size=16, hold_out=0), 6)
    assert photos.generated.shape == (6, 3, 16, 16)
    drawn = photos.draw(10, torch.Generator().manual_seed(0))
    white = (drawn == 1).flatten(1).all(1)
    assert white.tolist() == [False] * 5 + [True] * 5
    assert all(any(torch.equal(face, own) for own in photos.generated) for face in drawn[:5])
