"""What faces' colors and highlights say of an image."""

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.search.image_priors import (
    FACE_DEVIATION,
    FACE_HIGHLIGHT,
    FACE_MEAN,
    exposure,
    face_colors,
)


def faces_noise(channels: int) -> Tensor:
    """Noise with the mean and deviation of faces' colors; `[2, channels, 16, 16]`."""
    noise = torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean((0, 2, 3), keepdim=True)) / noise.std((0, 2, 3), keepdim=True)
    mean, deviation = torch.tensor(FACE_MEAN), torch.tensor(FACE_DEVIATION)
    if channels == 1:
        mean, deviation = mean.mean()[None], deviation.mean()[None]
    return noise * deviation[:, None, None] + mean[:, None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_of_a_batch_are_drawn_to_those_of_faces(channels: int) -> None:
    images = faces_noise(channels)
    assert float(face_colors(images)) == pytest.approx(0, abs=1e-6)
    assert float(face_colors(images + 0.1)) == pytest.approx(channels * 0.01, rel=1e-3)


@pytest.mark.parametrize("center", [0.0, 0.5])
def test_the_contrast_is_found_with_which_highlights_are_as_photos_of_faces_have_them(
    center: float,
) -> None:
    images = torch.linspace(0, FACE_HIGHLIGHT / 0.98, 1000).repeat(2, 3, 5, 1)
    for gain in (0.5, 1.0, 1.25):
        assert exposure(center + (images - center) / gain, center) == pytest.approx(gain, rel=1e-3)


def test_highlights_of_more_numbers_than_torch_sorts_are_found() -> None:
    images = torch.linspace(0, 1, 100).repeat(3, 600, 100)[None]  # 18 million
    assert exposure(images) == pytest.approx(FACE_HIGHLIGHT / 0.98, rel=0.02)
