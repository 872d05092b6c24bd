"""Priors that know the audited photos are named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedaudit.captures.simulate.prior_overlap import overlaps
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.prior_file import Manifest, photos_behind, write_prior
from fedaudit.priors.training_photos import from_folder
from fedaudit.study.deciding_files import barred_assets

IMAGE_SPACE, STOCK = Choice("inverting_gradients"), Choice("gan_inversion")


def asked(data: Choice, *attacks: Choice) -> Study:
    return Study("s", (Scenario("a", attacks=attacks),), data=data)


def test_the_stock_generator_knows_the_faces_that_it_drew() -> None:
    found = overlaps(asked(Choice("synthetic"), IMAGE_SPACE, STOCK))
    assert list(found) == ["gan_inversion"]
    assert "drew the audited faces" in found["gan_inversion"]
    assert not overlaps(asked(Choice("orl"), IMAGE_SPACE, STOCK))


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (Choice("orl"), True),
        (Choice("synthetic"), False),
        (Choice("folder", {"path": "photos/orl"}), True),
        (Choice("folder", {"path": "photos/others"}), False),
    ],
)
def test_a_trained_prior_says_on_whom(tmp_path: Path, data: Choice, known: bool) -> None:
    path, widths = tmp_path / "prior.safetensors", (8, 8)
    generator = FaceGan(widths, 4, (0.0, 1.0, 0.0, 1.0))
    write_prior(path, generator, Manifest(widths=widths, latent_dim=4, data="orl"))
    found = overlaps(asked(data, Choice("gan_inversion", {"prior": str(path)})))
    assert bool(found) == known


@pytest.mark.parametrize("fact", [{"generated": 5}, {"start": "face_gan"}, {}])
def test_a_prior_that_learned_from_the_stock_generator(
    tmp_path: Path, fact: dict[str, Any]
) -> None:
    path, widths = tmp_path / "prior.safetensors", (8, 8)
    about = Manifest(widths=widths, latent_dim=4, data="orl", **fact)
    write_prior(path, FaceGan(widths, 4, (0.0, 1.0, 0.0, 1.0)), about)
    study = asked(Choice("synthetic"), Choice("gan_inversion", {"prior": str(path)}))
    assert bool(overlaps(study)) == bool(fact)
    study = asked(Choice("orl"), Choice("gan_inversion", {"prior": str(path)}))
    assert ("face_gan" in barred_assets(study)) == bool(fact)


def _photos(folder: Path, *shades: int) -> Path:
    for shade in shades:
        file = folder / "somebody" / f"{shade}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (shade, 0, 0)).save(file)
    return folder


def test_photos_under_other_names_are_known(tmp_path: Path) -> None:
    """Of the folder that a prior learned; renamed, in another folder, among others."""
    audited, learned = _photos(tmp_path / "audited", *range(8)), tmp_path / "learned"
    copies = _photos(tmp_path / "copies", *range(100, 107))
    shutil.copy(audited / "somebody" / "3.png", copies / "somebody" / "another.png")
    (path, widths) = tmp_path / "prior.safetensors", (8, 8)
    for folder, found in ((copies, "1 of the 8 audited photos"), (learned, "")):
        _photos(learned, *range(50, 58))
        photos = from_folder(folder, size=16)
        about = Manifest(widths=widths, latent_dim=4, data=photos.name)
        write_prior(path, FaceGan(widths, 4, (0.0, 1.0, 0.0, 1.0)), about, photos.hashes)
        assert len(photos_behind(path)) == len(photos.hashes) == 8
        data = Choice("folder", {"path": str(audited)})
        told = overlaps(asked(data, Choice("gan_inversion", {"prior": str(path)})))
        assert told.get("gan_inversion", "").startswith(found)
        assert bool(told) == bool(found)


def test_the_attackers_own_folder_is_compared(tmp_path: Path) -> None:
    audited = Choice("folder", {"path": str(_photos(tmp_path / "audited", 1, 2))})
    for name, known in (("same", (2, 3)), ("others", (4, 5))):
        own = _photos(tmp_path / name, *known)
        told = overlaps(asked(audited, Choice("learned_inversion", {"photos": str(own)})))
        assert bool(told) == (name == "same")
    assert photos_behind(tmp_path / "none.safetensors") == frozenset()
