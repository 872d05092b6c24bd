import pytest
import torch

from fedaudit.scoring.copies import NO_CALIBRATION, calibrate_copies, nearest_photos
from fedaudit.scoring.image_metrics import PSNR


def test_the_nearest_other_photo_by_another_way() -> None:
    images = torch.rand((300, 1, 6, 6), generator=torch.Generator().manual_seed(3))
    people = [f"p{k % 7}" for k in range(300)]
    found = nearest_photos(images, people)
    metric = PSNR()
    for person in ("p0", "p6"):
        best = max(
            float(metric(images[k].expand_as(images), images)[torch.arange(300) != k].max())
            for k in range(300)
            if people[k] == person
        )
        assert found[person] == pytest.approx(best, abs=0.02)
    assert set(found) == set(people)


def test_a_photo_that_is_there_twice_is_no_other_photo() -> None:
    three = torch.rand((3, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    people = ["a", "b", "c"]
    twice = nearest_photos(torch.cat([three, three[:1] + 1e-4]), [*people, "a"])
    assert twice == pytest.approx(nearest_photos(three, people), abs=0.02)


def test_nobodys_other_photo_passes() -> None:
    nearest = {f"p{k}": 20 + 0.1 * k for k in range(25)}
    found = calibrate_copies(nearest)
    assert found.psnr == pytest.approx(23.4)
    assert found.false_copies
    assert (found.false_copies.hits, found.false_copies.n) == (0, 25)
    assert found.proves
    few = calibrate_copies(dict(list(nearest.items())[:19]))
    assert not few.proves


def test_somebody_whose_photos_are_all_alike_takes_the_proof_away() -> None:
    """The threshold of everybody else lets them pass: it may let the next one pass, too."""
    nearest = {f"p{k}": 20.0 for k in range(25)} | {"twin": 21.0}
    found = calibrate_copies(nearest)
    assert found.false_copies
    assert found.false_copies.hits == 1
    assert found.psnr == 22.0
    assert not found.proves
    assert calibrate_copies(nearest | {"other twin": 20.9}).proves


def test_without_photos_nothing_is_proved() -> None:
    assert calibrate_copies({}) == calibrate_copies({"a": 20.0}) == NO_CALIBRATION
    assert not NO_CALIBRATION.proves
