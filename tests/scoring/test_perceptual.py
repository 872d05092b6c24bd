import pickle
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedaudit.core.errors import AssetError
from fedaudit.data.orl import orl
from fedaudit.files import asset_store
from fedaudit.scoring.perceptual import Net, convert_checkpoint, load_lpips, lpips_distance


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_heads_are_those_of_lpips(net: Net) -> None:
    """The converted file holds its own copy of the heads: all of it was converted correctly."""
    own = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    upstream = torch.load(own, map_location="cpu", weights_only=True)
    converted = load_file(asset_store.path(f"lpips_{net}"))
    assert len(upstream) == 5
    for name, head in upstream.items():
        assert torch.equal(converted[name], head)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_equal_images_are_at_distance_zero(net: Net) -> None:
    images = orl(size=64).images[:2]
    assert torch.equal(lpips_distance(images, images, net), torch.zeros(2))
    assert (lpips_distance(images[:1], images[1:], net) > 0.01).all()


def test_distance_grows_with_noise_and_is_symmetric() -> None:
    image = orl(size=64).images[:1]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    noisy = torch.cat([(image + s * noise).clamp(0, 1) for s in (0.02, 0.05, 0.1, 0.3, 1.0)])
    distances = lpips_distance(image.expand_as(noisy), noisy)
    assert (distances.diff() > 0).all()
    assert torch.allclose(lpips_distance(noisy, image.expand_as(noisy)), distances, atol=1e-6)


def test_another_photo_of_a_person_is_closer_than_another_persons() -> None:
    """ImageNet features, not random ones: photos of a person resemble each other."""
    images = orl(size=64).images
    first = images[::10][:20]
    own = lpips_distance(first, images[1::10][:20])
    others = lpips_distance(first, first.roll(1, 0))
    assert own.mean() < 0.8 * others.mean()


def test_small_images_are_enlarged() -> None:
    small = orl(size=16).images[:2]
    large = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear", antialias=True)
    enlarged = lpips_distance(large[:1], large[1:])
    assert torch.equal(lpips_distance(small[:1], small[1:]), enlarged)


def test_one_channel_many_images_none() -> None:
    images = orl(size=64).images[:40]
    gray = lpips_distance(images[:, :1], images[:, :1].roll(1, 0))
    assert gray.shape == (40,)
    assert torch.allclose(gray, lpips_distance(images, images.roll(1, 0)))
    assert lpips_distance(images[:0], images[:0]).shape == (0,)
    with pytest.raises(ValueError, match="one shape"):
        lpips_distance(images[:2], images[:3])


def test_frozen_and_random_state_untouched() -> None:
    load_lpips.cache_clear()
    before = torch.random.get_rng_state()
    model = load_lpips()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    "content", [_Evil(), {"AlexNet_0": _Evil()}, np.array([_Evil()], dtype=object)]
)
def test_pickles_that_want_to_run_something_are_refused(
    tmp_path: Path, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(AssetError, match="refused"):
        convert_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{}, {"AlexNet_0": {"Conv_0": {}}}, [1, 2]])
def test_other_checkpoints_are_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(AssetError):
        convert_checkpoint(tmp_path)


def test_conversion_leaves_only_the_safe_format(tmp_path: Path) -> None:
    shapes = [(11, 11, 3, 2), (5, 5, 2, 3), (3, 3, 3, 4), (3, 3, 4, 5), (3, 3, 5, 6)]
    values = np.random.default_rng(0)
    tree: dict[str, Any] = {"AlexNet_0": {}}
    for i, shape in enumerate(shapes):
        kernel = values.normal(size=shape).astype(np.float32)
        tree["AlexNet_0"][f"Conv_{i}"] = {"kernel": kernel, "bias": kernel[0, 0, 0]}
        tree[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": kernel[:1, :1, :, :1]}}
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(tree))
    convert_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["alexnet.safetensors"]
    weights = load_file(tmp_path / "alexnet.safetensors")
    assert weights["features.3.weight"].shape == (3, 2, 5, 5)
    kernel = tree["AlexNet_0"]["Conv_1"]["kernel"]
    assert weights["features.3.weight"][2, 1, 4, 0] == kernel[4, 0, 1, 2]


def test_own_file_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"not safetensors")
    monkeypatch.setenv("FEDAUDIT_ASSET_LPIPS_ALEX", str(tmp_path / "mine.safetensors"))
    load_lpips.cache_clear()
    with pytest.raises(AssetError, match="not in the safetensors format"):
        load_lpips()
