"""Quarter turns of a photo explain an update as well as the photo; faces tell them apart."""

import pytest
import torch

from fedaudit.attacks.learned.auxiliary import Auxiliary
from fedaudit.attacks.upright import alike, fitted, upright
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


def drawn(groups: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A kernel of three rows a group, and answers that are smooth but for noise."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(groups, 3, 2, generator=generator, dtype=torch.float64)
    answer = (4 * places[..., 0]).sin() + places[..., 1]
    answer += noise * torch.randn(groups, 3, generator=generator, dtype=torch.float64)
    rows = places.flatten(0, 1)
    return torch.exp(-torch.cdist(rows, rows).square() / 0.1), answer


def test_the_error_on_groups_left_out_is_that_of_leaving_them_out() -> None:
    kernel, answer = drawn(12, 0.1)
    ridges = (1e-2, 1e-1)
    factors, errors = fitted(kernel, answer, ridges)
    for ridge, error in zip(ridges, errors, strict=True):
        apart = []
        for group in range(12):
            out = torch.arange(36) // 3 == group
            within = kernel[~out][:, ~out] + ridge * torch.eye(33, dtype=torch.float64)
            told = kernel[out][:, ~out] @ torch.linalg.solve(within, answer.flatten()[~out])
            apart.append((told - answer[group]).square().mean())
        assert float(error) == pytest.approx(float(torch.stack(apart).mean()), rel=1e-6)
    ridge = ridges[int(errors.argmin())]
    again = torch.linalg.solve(kernel + ridge * torch.eye(36), answer.flatten())
    assert torch.allclose(factors, again)


def test_noisier_answers_are_smoothed_more() -> None:
    ridges = (1e-3, 1e-2, 1e-1, 1.0)
    chosen = [int(fitted(*drawn(40, noise), ridges)[1].argmin()) for noise in (0.0, 1.0)]
    assert chosen[0] < chosen[1]
