import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.generators.untrained import UntrainedPrior
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create
from fedaudit.data.face_set import FaceSet


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 64), (3, 25, 31), (1, 8, 8)])
def test_images_of_any_size_each_on_its_own(shape: tuple[int, int, int]) -> None:
    prior = UntrainedPrior(shape, noise(), count=2, width=8)
    images = prior.images(prior.parameters())
    assert images.shape == (2, *shape)
    assert 0 < images.min() < images.max() < 1
    assert images.std() > 0.02  # not a flat gray
    assert not torch.allclose(images[0], images[1], atol=1e-2)  # noise of its own
    assert torch.equal(images, prior.network(prior.noise))
    assert torch.allclose(prior.network(prior.noise[:1]), images[:1], atol=1e-6)


def test_the_seed_decides_and_global_state_stays() -> None:
    before = torch.get_rng_state()
    one, two, other = (UntrainedPrior((3, 16, 16), noise(s), width=8) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.images(one.parameters()), two.images(two.parameters()))
    assert not torch.allclose(one.images(one.parameters()), other.images(other.parameters()))


@pytest.mark.parametrize("setting", [{"count": 0}, {"width": 6}, {"noise_channels": 0}])
def test_settings_out_of_range(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        UntrainedPrior((3, 16, 16), noise(), **setting)
    with pytest.raises(ValueError, match="8 pixels"):
        UntrainedPrior((3, 7, 16), noise())


def fit(prior: UntrainedPrior, target: Tensor, steps: int) -> float:
    parameters = prior.parameters()
    optimizer = torch.optim.Adam(parameters.values(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (prior.images(parameters) - target).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(loss.detach())


def test_a_face_is_reached_before_noise(faces: FaceSet) -> None:
    """The point of the prior: the same network, the same steps, the same first two moments."""
    face = faces.images[:1]
    shuffled = face.flatten(2)[:, :, torch.randperm(1024, generator=noise())].view_as(face)
    started = time.process_time()
    of_face, of_noise = (
        fit(UntrainedPrior((3, 32, 32), noise(), width=16), target, 30)
        for target in (face, shuffled)
    )
    assert time.process_time() - started < 10
    assert of_face < 0.3 * of_noise
    assert of_face < 0.2 * float(face.var())


def test_many_starts_at_once() -> None:
    prior = UntrainedPrior((3, 16, 16), noise(), width=8)
    stacked = {
        name: torch.stack([value.detach(), value.detach() * 1.1])
        for name, value in prior.parameters().items()
    }
    images = torch.vmap(prior.images)(stacked)
    for i in range(2):
        one = prior.images({name: value[i] for name, value in stacked.items()})
        assert torch.allclose(images[i], one, atol=1e-5)


def test_it_draws_for_a_match_in_double_precision(intercept: Callable[..., Capture]) -> None:
    """Small smooth networks are matched in double precision, the drawing network is not."""
    captured = intercept(network="lenet")
    made = create("attacks", "gion", {"steps": 2})(
        captured.seen, generator=torch.Generator().manual_seed(0)
    )
    assert made.images.shape == (1, 3, 32, 32)
    assert made.iterations == 2
