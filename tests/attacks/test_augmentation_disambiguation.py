"""Quarter turns of a photo explain an update as well as the photo; faces tell them apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.augmentation_disambiguation import (
    Copying,
    disambiguate,
    fit_ridge,
    learn_score,
)
from fedaudit.data.face_set import FaceSet
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
    assert Copying(defense.replay(1).images, SHAPE).which == expected


def test_without_a_defense_of_photos_an_image_is_itself() -> None:
    assert Copying((), SHAPE).which == (0,)


@pytest.mark.slow
def test_faces_are_turned_upright(faces: FaceSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance one in four; the attacker learns it from few faces of other people."""
    few = learn_score(Copying(OASIS().replay(1).images, SHAPE), faces=400, centers=600)
    monkeypatch.setattr(
        "fedaudit.attacks.adaptive.augmentation_disambiguation.learn_score",
        lambda copying, source: few,
    )
    photos = faces.images[::10]
    for turns in (0, 1):
        found = disambiguate(
            OASIS().replay(1).images, torch.rot90(photos, turns, (2, 3)), "face_gan"
        )
        right = (found - photos).abs().flatten(1).amax(1) < 1e-6
        assert float(right.float().mean()) > 0.8
    # Of larger photos it looks at as many pixels.
    large = F.interpolate(photos, (80, 80), mode="bilinear")
    found = disambiguate(OASIS().replay(1).images, torch.rot90(large, 1, (2, 3)), "face_gan")
    right = (found - large).abs().flatten(1).amax(1) < 1e-6
    assert float(right.float().mean()) > 0.8


def test_what_copies_alike_is_learned_once() -> None:
    one, two = (Copying(OASIS().replay(1).images, SHAPE) for _ in range(2))
    assert one == two
    assert learn_score(one, faces=4, centers=8) is learn_score(two, faces=4, centers=8)
    other = Copying(OASIS(rotations=(180,)).replay(1).images, SHAPE)
    assert other != one


def test_images_without_such_copies_stay(faces: FaceSet) -> None:
    images = torch.rot90(faces.images[:2], 1, (2, 3))
    assert disambiguate(OASIS(rotations=(30,)).replay(1).images, images, "face_gan") is images


def drawn(groups: int, noise: float) -> tuple[Tensor, Tensor]:
    """Three rows a group, and answers that are linear in them but for noise."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(groups * 3, 8, generator=generator, dtype=torch.float64)
    answer = rows @ torch.ones(8, dtype=torch.float64)
    answer += noise * torch.randn(groups * 3, generator=generator, dtype=torch.float64)
    return rows, answer.view(groups, 3)


def test_the_error_on_groups_left_out_is_that_of_leaving_them_out() -> None:
    rows, answer = drawn(12, 0.5)
    ridges = (1e-2, 10.0)
    factors, errors = fit_ridge(rows, answer, ridges)

    def solved(of: Tensor, ridge: float) -> Tensor:
        part, told = rows[of], answer.flatten()[of]
        found: Tensor = torch.linalg.solve(part.T @ part + ridge * torch.eye(8), part.T @ told)
        return found

    group = torch.arange(36) // 3
    for ridge, error in zip(ridges, errors, strict=True):
        apart = [
            (rows[group == k] @ solved(group != k, ridge) - answer[k]).square().mean()
            for k in range(12)
        ]
        assert float(error) == pytest.approx(float(torch.stack(apart).mean()), rel=1e-6)
    assert torch.allclose(factors, solved(group >= 0, ridges[int(errors.argmin())]))


def test_noisier_answers_are_shrunk_more() -> None:
    ridges = (1e-2, 1.0, 1e2)
    chosen = [int(fit_ridge(*drawn(6, noise), ridges)[1].argmin()) for noise in (0.0, 20.0)]
    assert chosen[0] < chosen[1]
