"""The generator of faces that comes along."""

import pytest
import torch
from torch import Tensor

from fedaudit.models.face_gan import FaceGan
from fedaudit.models.generator import StagedGenerator, load_generator
from fedaudit.scoring.embedder import load_embedder


@pytest.fixture(scope="module")
def gan() -> FaceGan:
    loaded = load_generator()
    assert isinstance(loaded, FaceGan)
    return loaded


@pytest.fixture
def z() -> Tensor:
    return torch.randn(4, 100, generator=torch.Generator().manual_seed(0))


def test_images_in_range_frozen_and_independent_of_each_other(gan: FaceGan, z: Tensor) -> None:
    images = gan(z)
    assert images.shape == (4, 3, 64, 64)
    assert 0 <= images.min() < 0.2
    assert 0.8 < images.max() <= 1
    assert not gan.training
    assert not any(p.requires_grad for p in gan.parameters())
    assert torch.allclose(gan(z[:1]), images[:1], atol=1e-5)  # batch norm in evaluation mode
    assert isinstance(gan, StagedGenerator)


def test_it_draws_faces(gan: FaceGan) -> None:
    """Trained weights: samples of one latent point agree, other points differ, no noise."""
    noise = torch.Generator().manual_seed(1)
    z = torch.randn(8, 100, generator=noise)
    near = z + 0.1 * torch.randn(8, 100, generator=noise)
    a, b = (load_embedder().embed(gan(x)) for x in (z, near))
    assert ((a @ b.T).argmax(1) == torch.arange(8)).all()


@pytest.mark.parametrize("stage", range(5))
def test_entering_half_way_gives_the_same_images(gan: FaceGan, z: Tensor, stage: int) -> None:
    feature = gan.features(z, stage)
    side = 4 * 2 ** (stage - 1)
    widths = (100, 512, 256, 128, 64)
    assert feature.shape == ((4, 100) if stage == 0 else (4, widths[stage], side, side))
    assert torch.equal(gan.forward_from(stage, feature), gan(z))


def test_gradients_reach_the_inner_map(gan: FaceGan, z: Tensor) -> None:
    feature = gan.features(z, 2).requires_grad_()
    (slope,) = torch.autograd.grad(gan.forward_from(2, feature).sum(), feature)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("stage", [-1, 5])
def test_stages_that_do_not_exist(gan: FaceGan, z: Tensor, stage: int) -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        gan.features(z, stage)
