import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.errors import ConfigError
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.data.face_set import FaceSet
from fedaudit.scoring import metrics
from fedaudit.scoring.image_metrics import LPIPS, MSE, PSNR, SSIM
from fedaudit.scoring.score import score

METRICS = (SSIM(), PSNR(), MSE(), LPIPS())


def _secret(images: Tensor) -> Secret:
    names = tuple(f"p{k}" for k in range(len(images)))
    return Secret(images, torch.arange(len(images)), names, names)


def _noisy(images: Tensor, amount: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + amount * noise).clamp(0, 1)


def test_ssim_is_wangs(faces: FaceSet) -> None:
    """Gaussian window, by hand a channel at a time: σ 1.5, 11 px, no sample covariance."""
    first, second = faces.images[:3], _noisy(faces.images[:3], 0.1)
    found = SSIM()(first, second)
    for k in range(3):
        by_channel = [
            structural_similarity(
                first[k, c].numpy(),
                second[k, c].numpy(),
                win_size=11,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
            )
            for c in range(3)
        ]
        assert float(found[k]) == pytest.approx(np.mean(by_channel), abs=1e-5)


def test_ssim_of_constants_by_hand() -> None:
    """No variance: only the luminance term is left."""
    a, b = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.75)
    c1 = 0.01**2
    expected = (2 * 0.25 * 0.75 + c1) / (0.25**2 + 0.75**2 + c1)
    assert float(SSIM()(a, b)) == pytest.approx(expected, abs=1e-5)


def test_ssim_can_be_negative() -> None:
    ramp = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    ramp = ramp.expand(1, 3, 32, 32)
    assert -1 <= float(SSIM()(ramp, 1 - ramp)) < -0.5


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_equal_images_are_best(metric: SSIM | PSNR | MSE | LPIPS, faces: FaceSet) -> None:
    same = metric(faces.images[:2], faces.images[:2])
    low, high = metric.range
    assert same.tolist() == pytest.approx([high if metric.higher_is_better else low] * 2)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_direction_and_range_are_true(metric: SSIM | PSNR | MSE | LPIPS, faces: FaceSet) -> None:
    image = faces.images[:1]
    values = torch.cat([metric(image, _noisy(image, s)) for s in (0.02, 0.1, 0.3)])
    better = values.diff() < 0 if metric.higher_is_better else values.diff() > 0
    assert better.all()
    assert ((values >= metric.range[0]) & (values <= metric.range[1])).all()
    assert values.shape == (3,)
    assert metric.unit == ("dB" if isinstance(metric, PSNR) else "")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_one_value_an_image(metric: SSIM | PSNR | MSE | LPIPS, faces: FaceSet) -> None:
    first, second = faces.images[:3], faces.images[10:13]
    together = metric(first, second)
    alone = torch.cat([metric(first[k : k + 1], second[k : k + 1]) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.dtype == torch.float32


@given(st.floats(0.001, 1))
def test_mse_and_psnr_by_hand(offset: float) -> None:
    black = torch.zeros(1, 3, 4, 4)
    gray = torch.full_like(black, offset)
    assert float(MSE()(black, gray)) == pytest.approx(offset**2, rel=1e-4)
    assert float(PSNR()(black, gray)) == pytest.approx(-20 * math.log10(offset), abs=1e-3)


def test_worst_and_best_psnr() -> None:
    black = torch.zeros(1, 3, 4, 4)
    assert float(PSNR()(black, black)) == 100
    assert abs(float(PSNR()(black, black + 1))) < 1e-5


def test_half_of_the_pixels_wrong() -> None:
    wrong = torch.zeros(1, 1, 2, 2)
    wrong[..., 0] = 1
    assert MSE()(torch.zeros(1, 1, 2, 2), wrong).tolist() == [0.5]


def test_scale_matters(faces: FaceSet) -> None:
    """Why images are compared on [0, 1]: normalized tensors give other numbers for one pair."""
    first, second = faces.images[:1], _noisy(faces.images[:1], 0.1)
    normal = PSNR()((first - 0.5) / 0.25, (second - 0.5) / 0.25)
    assert float(PSNR()(first, second) - normal) == pytest.approx(20 * math.log10(4), abs=1e-3)


def test_the_scorer_clamps_to_the_unit_range(faces: FaceSet) -> None:
    """A reconstruction gains and loses nothing by values that cannot be shown."""
    images = faces.images[:2]
    wild = images.clone()
    wild[:, :, :8], wild[:, :, 8:16] = 7.0, -3.0
    secret, unknown = _secret(images), torch.full((2,), -1)
    found, _, kept = score(secret, Reconstruction(wild, unknown), gallery=None, embed=None)
    clamped, _, _ = score(
        secret, Reconstruction(wild.clamp(0, 1), unknown), gallery=None, embed=None
    )
    assert found == clamped
    assert (float(kept.min()), float(kept.max())) == (0, 1)


def test_scores_without_a_gallery(faces: FaceSet) -> None:
    """Images come back in the originals' order; identity is unknown, not zero."""
    images = faces.images[:20:10]
    secret = _secret(images)
    turned = Reconstruction(images.flip(0), torch.tensor([1, 0]))
    found, labels, kept = score(secret, turned, gallery=None, embed=None)
    assert torch.equal(kept, images)
    assert labels == 1.0
    assert [s.person for s in found] == ["p0", "p1"]
    for image in found:
        assert (image.metrics["mse"], image.metrics["psnr"]) == (0.0, 100.0)
        assert (image.metrics["ssim"], image.metrics["lpips"]) == pytest.approx((1.0, 0.0))
        assert image.cosine is image.reidentified is image.rank is image.wrong_reidentified is None


def test_photos_that_came_back_under_wrong_labels_are_found(faces: FaceSet) -> None:
    """All labels are there, each at somebody else's photo: no photo counts as less near for it."""
    images = faces.images[:30:10]
    swapped = Reconstruction(images.flip(0), torch.tensor([0, 1, 2]))
    found, labels, kept = score(_secret(images), swapped, gallery=None, embed=None)
    assert torch.equal(kept, images)
    assert labels == 1.0
    assert [s.metrics["ssim"] for s in found] == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ["ssim", "psnr", "mse", "lpips"])
def test_metrics_are_registered(name: str) -> None:
    assert type(create("metrics", name, {})) in {SSIM, PSNR, MSE, LPIPS}


def test_metrics_say_in_which_order_and_how_they_are_shown() -> None:
    facts = metrics.declarations()
    assert [f.title for f in facts] == ["SSIM", "LPIPS", "PSNR", "MSE"]
    assert [f.arrow for f in facts] == ["↓", "↑", "↓", "↑"]
    assert facts[2].scale == "dB, 0–100"


def test_a_metric_that_is_no_longer_installed_keeps_its_name() -> None:
    assert [f.title for f in metrics.declarations(["gone", "mse", "gone"])] == ["MSE", "gone"]


def test_a_metric_must_give_one_number_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PSNR, "__call__", lambda self, a, b: (a - b).square().mean())
    with pytest.raises(
        ConfigError, match=r"'psnr' returned shape \[\] for 2 images.*one number an"
    ):
        metrics.measure(torch.zeros(2, 3, 32, 32), torch.ones(2, 3, 32, 32))
