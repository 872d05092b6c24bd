"""Priors that know the audited photos are named."""

from pathlib import Path

import pytest

from fedaudit.captures.simulate.prior_overlap import overlaps
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.prior_file import Manifest, write_prior

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
