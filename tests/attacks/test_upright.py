"""Quarter turns of a photo explain an update as well as the photo; faces tell them apart."""

import pytest
import torch

from fedaudit.attacks.learned.auxiliary import Auxiliary
from fedaudit.attacks.upright import alike, upright
from fedaudit.data.faces import FaceSet
from fedaudit.defenses.oasis import OASIS

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    ("defense", "expected"),
    [
        (OASIS(), (0, 1, 2, 3)),
        (OASIS(rotations=(), flips=("horizontal",)), (0, 1)),
        (OASIS(rotations=(180,), flips=("horizontal", "vertical")), (0, 1, 2, 3)),
        (OASIS(rotations=(90,)), (0,)),
        (OASIS(rotations=(30,), shears=(0.5,)), (0,)),
    ],
)
def test_which_copies_are_as_good_as_the_photo(defense: OASIS, expected: tuple[int, ...]) -> None:
    assert alike(defense.replay(1).images, SHAPE) == expected


def test_without_a_defense_of_photos_an_image_is_itself() -> None:
    assert alike((), SHAPE) == (0,)


def test_faces_are_turned_upright(faces: FaceSet) -> None:
    """By chance one in four; the attacker learns it from faces of other people."""
    own = Auxiliary().faces(200, SHAPE, torch.Generator().manual_seed(0), grayscale=True)
    photos = faces.images[::10]
    acts = OASIS().replay(1).images
    for turns in (0, 1):
        found = upright(acts, torch.rot90(photos, turns, (2, 3)), own)
        right = (found - photos).abs().flatten(1).amax(1) < 1e-6
        assert float(right.float().mean()) > 0.75


def test_images_without_such_copies_stay(faces: FaceSet) -> None:
    images = torch.rot90(faces.images[:2], 1, (2, 3))
    assert upright(OASIS(rotations=(30,)).replay(1).images, images, faces.images[:2]) is images
