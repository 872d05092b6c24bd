"""Patches that are embedded by a product."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp, vmap

from fedaudit.attacks.evidence.patch_products import patch_products

IMAGES = torch.rand(2, 3, 13, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def embedding(**settings: object) -> nn.Conv2d:
    torch.manual_seed(1)
    given = {"kernel_size": (4, 3), "stride": (4, 3)} | settings
    return nn.Conv2d(3, 5, **given, dtype=torch.float64)  # type: ignore[arg-type]


def slope(layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    maps = layer(images)
    (by_images,) = torch.autograd.grad(maps.square().sum(), images)
    return maps.detach(), by_images


@pytest.mark.parametrize("bias", [True, False])
def test_maps_and_slopes_are_those_of_the_convolution(bias: bool) -> None:
    layer = embedding(bias=bias)
    usual = slope(layer, IMAGES)
    with patch_products():
        found = slope(layer, IMAGES)
    for one, other in zip(found, usual, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-12)


def test_weights_have_their_gradients() -> None:
    layer, images = embedding(), IMAGES.clone().requires_grad_()
    layer(images).square().sum().backward()
    usual = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    layer.zero_grad()
    with patch_products():
        layer(images).square().sum().backward()
    found = [p.grad for p in layer.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, usual, strict=True))


def test_restarts_and_directional_derivatives_go_through_it() -> None:
    layer, several = embedding(), torch.stack([IMAGES, IMAGES.flip(0)])
    usual = torch.stack([layer(images) for images in several])
    with patch_products():
        assert torch.allclose(vmap(layer)(several.clone().requires_grad_()), usual, atol=1e-12)
        maps, moved = jvp(layer, (IMAGES.clone().requires_grad_(),), (IMAGES,))[:2]
    assert torch.allclose(maps, usual[0], atol=1e-12)
    assert torch.allclose(moved, F.conv2d(IMAGES, layer.weight, None, (4, 3)), atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 1},
        {"padding": 1},
        {"dilation": 2, "kernel_size": 2, "stride": 2},
        {"kernel_size": 1, "stride": 1},
        {"stride": 1, "padding": "same"},
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(settings: dict[str, object]) -> None:
    layer, images = embedding(**settings), IMAGES.clone().requires_grad_()
    usual = type(layer(images).grad_fn)
    with patch_products():
        assert type(layer(images).grad_fn) is usual


def test_a_single_image_without_a_batch_and_values_alone_are_left_alone() -> None:
    layer = embedding()
    with patch_products():
        assert layer(IMAGES[0].clone().requires_grad_()).shape == (5, 3, 4)
        assert "Convolution" in type(layer(IMAGES).grad_fn).__name__


def test_other_threads_and_what_follows_the_block_are_left_alone() -> None:
    layer, images, names = embedding(), IMAGES.clone().requires_grad_(), list[str]()

    def elsewhere() -> None:
        names.append(type(layer(images).grad_fn).__name__)

    usual = F.conv2d
    with patch_products():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "Convolution" not in type(layer(images).grad_fn).__name__
    assert "Convolution" in names[0]
    assert F.conv2d is usual
