import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.models.generator import StagedGenerator
from fedaudit.models.style_generator import ModulatedConv, StyleGenerator

WIDTHS, LATENT_DIM = (8, 6, 4), 5


@pytest.fixture(params=[False, True])
def generator(request: pytest.FixtureRequest) -> StyleGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StyleGenerator(WIDTHS, LATENT_DIM, mapped=request.param).eval()


@pytest.fixture
def z() -> Tensor:
    return torch.randn(4, LATENT_DIM, generator=torch.Generator().manual_seed(0))


def test_images_are_in_range_and_their_own(generator: StyleGenerator, z: Tensor) -> None:
    images = generator(z)
    assert images.shape == (4, 3, 32, 32)
    assert generator.side == 32
    assert isinstance(generator, StagedGenerator)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(generator(z), images)  # without noise
    assert torch.allclose(generator(z[:1]), images[:1], atol=1e-6)
    assert (images[0] - images[1]).abs().max() > 0.05


@pytest.mark.parametrize(
    ("stage", "size"), [(0, 5), (1, 5 + 8 * 4 * 4), (2, 5 + 6 * 8 * 8), (3, 5 + 4 * 16 * 16)]
)
def test_entering_half_way_gives_the_same_images(
    generator: StyleGenerator, z: Tensor, stage: int, size: int
) -> None:
    state = generator.features(z, stage)
    assert state.shape == (4, size)
    assert torch.equal(generator.forward_from(stage, state), generator(z))
    if stage > 1:  # one stage after the other, as attacks go on
        assert torch.equal(generator.stages[stage - 1](generator.features(z, stage - 1)), state)


def test_style_and_map_both_say_what_is_drawn(generator: StyleGenerator, z: Tensor) -> None:
    state = generator.features(z, 2).detach().requires_grad_()
    (slope,) = torch.autograd.grad(generator.forward_from(2, state).square().sum(), state)
    assert slope[:, :LATENT_DIM].abs().amin() > 0
    assert slope[:, LATENT_DIM:].abs().amax() > 0


@pytest.mark.parametrize("stage", [-1, 4])
def test_stages_that_do_not_exist(generator: StyleGenerator, z: Tensor, stage: int) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        generator.features(z, stage)


def test_modulation_is_that_of_weights_of_each_image_own(z: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        conv = ModulatedConv(LATENT_DIM, 6, 3)
        x = torch.randn(len(z), 6, 4, 4)
    out = conv(x, z)
    for i, scales in enumerate(conv.style(z)):
        weight = conv.weight * scales[:, None, None, None]
        # A pixel meets 2 of 4 weights in each direction: a quarter of their squares on average.
        weight = weight / (weight.square().sum((0, 2, 3)) / 4 + 1e-8).sqrt()[:, None, None]
        expected = F.conv_transpose2d(x[i : i + 1], weight, conv.bias, stride=2, padding=1)
        assert torch.allclose(out[i : i + 1], expected, atol=1e-5)
    assert 0.5 < conv(x, 100 * z).std() < 2  # whatever the style's scale
