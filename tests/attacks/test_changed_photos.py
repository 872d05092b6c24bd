"""Photos that a defense changed are searched for as they were."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import assume
from fedaudit.attacks.adaptive.changed_photos import ChangedPhotos, copies_of, draws_differ, mixes
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create
from fedaudit.scoring.image_metrics import SSIM

Intercept = Callable[..., Capture]
SHAPE = (3, 16, 16)


def transforms(name: str) -> tuple[Callable[..., tuple[Tensor, Tensor]], ...]:
    found: tuple[Callable[..., tuple[Tensor, Tensor]], ...] = (
        create("defenses", name, {}).replay(2).images
    )
    return found


def test_what_the_acts_do_shows_when_they_are_tried() -> None:
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert [copies_of(transforms(name), SHAPE) for name in ("ats", "oasis")] == [1, 4]
    assert [mixes(transforms(name), SHAPE) for name in ("ats", "oasis", "mixup")] == [
        False,
        False,
        True,
    ]
    assert draws_differ(transforms("ats"), image)
    assert not draws_differ(transforms("oasis"), image)


def test_a_photos_draw_is_found() -> None:
    """Against the changed photo itself, which only one draw explains exactly."""
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    photos = ChangedPhotos(transforms("ats"), 2)
    photos.draws = [0, 5]
    nobody = torch.zeros(1, dtype=torch.long)
    wanted, _ = photos(image, nobody, [1])

    def distance(face: Tensor, place: int) -> float:
        return float((photos(face, nobody, [place])[0] - wanted).square().sum())

    photos.choose(distance, image)
    torch.testing.assert_close(photos(image, nobody, [1])[0], wanted)


@pytest.mark.slow  # a long search
def test_the_photo_is_rebuilt_and_not_what_became_of_it(intercept: Intercept) -> None:
    captured = intercept(defense="ats")
    assert captured.secret is not None
    attack = create(
        "attacks", "gan_inversion", {"latent_steps": 5, "stage_steps": 10, "pixel_steps": 50}
    )
    quality = {}
    for told in ("known", "no"):
        seen = assume(captured.seen, told)
        made = attack(seen, generator=torch.Generator().manual_seed(0))
        quality[told] = float(SSIM()(captured.secret.images, made.images)[0])
    assert quality["known"] > quality["no"] + 0.3


def test_copies_are_no_photos(intercept: Intercept) -> None:
    captured = intercept(batch=2, defense="oasis")
    evidence = gather(captured.seen)
    assert captured.seen.batch_size == 8
    assert evidence.count == 2
    assert evidence.labels is not None
    assert captured.secret is not None
    assert evidence.labels.tolist() == sorted(captured.secret.labels.tolist())
