"""Regions: a partition of the picture, and a map whose mean is the metric's."""

import torch

from fedaudit.data.face_set import FaceSet
from fedaudit.reports.explanation_page import overlay
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.why import regions


def test_every_place_is_in_one_region() -> None:
    for size in (16, 32, 112):
        found = regions.masks(size, size)
        assert set(found) == {"eyes", "nose", "mouth", "outline"}
        assert torch.equal(torch.stack(list(found.values())).sum(0), torch.ones(size, size))
    # Eyes lie above the nose above the mouth.
    rows = [float(found[n].nonzero()[:, 0].float().mean()) for n in ("eyes", "nose", "mouth")]
    assert rows == sorted(rows)


def test_the_local_map_averages_to_the_metric(faces: FaceSet) -> None:
    one, other = faces.images[:3], faces.images[10:13]
    local = regions.ssim_map(one, other)
    assert local.shape == (3, 32, 32)
    inner = local[:, 5:-5, 5:-5].mean((1, 2))  # the metric leaves half a window out
    assert torch.allclose(inner, SSIM()(one, other), atol=1e-5)


def test_damage_shows_in_its_own_region(faces: FaceSet) -> None:
    original = faces.images[:2]
    for name, mask in regions.masks(32, 32).items():
        found = regions._within(regions.ssim_map(original, torch.where(mask, 0.5, original)))
        assert min(found, key=lambda region: found[region]) == name


def test_an_overlay_is_red_where_the_heat_is() -> None:
    heat = torch.zeros(8, 8)
    heat[2, 3] = 5.0
    drawn = overlay(torch.full((3, 8, 8), 0.5), heat)
    assert drawn.shape == (3, 8, 8)
    assert drawn[0, 2, 3] > 0.7 > drawn[1, 2, 3] + 0.4
    assert torch.allclose(drawn[:, 0, 0], torch.tensor(0.5))
