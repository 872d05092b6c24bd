import pytest
import torch

from fedaudit.core.errors import AssetError
from fedaudit.core.registry import create
from fedaudit.data.orl import orl


def test_forty_people_in_numerical_order() -> None:
    faces = orl(size=32)
    assert faces.images.shape == (400, 3, 32, 32)
    assert faces.images.dtype == torch.float32
    assert faces.images.min() >= 0
    assert faces.images.max() <= 1
    assert faces.people[::10] == tuple(f"s{i}" for i in range(1, 41))
    assert faces.sources[9:11] == ("s1/10", "s2/1")
    assert faces.public
    assert faces.has_identities
    assert "Olivetti" in faces.terms


def test_grey_is_three_equal_channels() -> None:
    images = orl(size=32).images
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_shrinking_keeps_the_mean_brightness() -> None:
    # Without antialiasing, single pixels would be picked, and the means would differ by more.
    small, full = orl(size=16).images, orl(size=84).images
    assert (small.mean((1, 2, 3)) - full.mean((1, 2, 3))).abs().max() < 0.01


def test_registered_with_the_default_size() -> None:
    assert create("data", "orl", {}).images.shape[-1] == 64


def test_incomplete_folder_of_the_users(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDAUDIT_ASSET_ORL", str(tmp_path_factory.mktemp("empty")))
    with pytest.raises(AssetError, match="incomplete"):
        orl()
