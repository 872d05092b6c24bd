import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import kstest, truncnorm, uniform
from torch import Tensor

from fedaudit.models import latents
from fedaudit.models.latents import Latents, from_sampler


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (latents.normal(5), "norm"),
        (latents.uniform(5, low=-2.0, high=1.0), uniform(-2, 3).cdf),
        (latents.truncated(5, at=0.7), truncnorm(-0.7, 0.7).cdf),
    ],
)
def test_draws_follow_their_distribution(made: Latents, expected: object) -> None:
    drawn = made.draw(2000, noise())
    assert drawn.shape == (2000, 5)
    assert drawn.dtype == torch.float32
    assert kstest(drawn.flatten().numpy(), expected).pvalue > 1e-3
    assert drawn.std().item() == pytest.approx(made.spread, rel=0.03)
    units = made.standardize(drawn)
    assert units.std().item() == pytest.approx(1, rel=0.03)
    assert abs(units.mean().item()) < 0.03
    assert torch.allclose(made.restore(units), drawn, atol=1e-5)
    assert torch.equal(made.draw(3, noise(1)), made.draw(3, noise(1)))


def test_truncation_beyond_reach_is_the_normal() -> None:
    assert latents.truncated(3, at=30.0).spread == pytest.approx(1)
    assert latents.truncated(4, at=30.0).draw(9, noise()).isfinite().all()


def test_any_shape_and_a_normal_is_left_alone() -> None:
    made = latents.normal(10, 1, 1)
    drawn = made.draw(2, noise())
    assert (drawn.shape, made.size) == ((2, 10, 1, 1), 10)
    assert torch.equal(made.standardize(drawn), drawn)
    assert torch.equal(made.restore(drawn), drawn)


def mapped(count: int, generator: torch.Generator) -> Tensor:
    """A space with a mean, a spread a coordinate, and a coordinate that never moves."""
    z = torch.randn(count, 4, generator=generator)
    return z * torch.tensor([1.0, 5.0, 0.1, 0.0]) + torch.tensor([0.0, 10.0, -1.0, 3.0])


def test_moments_of_an_own_sampler() -> None:
    made = from_sampler(mapped)
    assert made.shape == (4,)
    assert isinstance(made.spread, Tensor)
    assert torch.allclose(made.spread[:3], torch.tensor([1.0, 5.0, 0.1]), rtol=0.1)
    units = made.standardize(made.draw(500, noise(3)))
    assert torch.allclose(units[:, :3].std(0), torch.ones(3), rtol=0.15)
    assert units.isfinite().all()


def test_a_sampler_without_a_generator_is_seeded_and_leaves_no_trace() -> None:
    made = from_sampler(lambda count: torch.randn(count, 2, 3))
    before = torch.get_rng_state()
    one, two, three = (made.draw(4, noise(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert made.shape == (2, 3)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    running = noise()
    assert not torch.equal(made.draw(4, running), made.draw(4, running))


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (lambda count, generator: torch.zeros(3, 4), r"gave \[3, 4\]"),
        (lambda count, generator: torch.zeros(count), r"not \[1024, …\]"),
        (lambda count, generator: "faces", "gave str"),
        (lambda count, generator: torch.full((count, 2), math.nan), "not finite"),
        (lambda count, generator: torch.ones(count, 2, dtype=torch.long), "not real"),
        (lambda count, generator: torch.ones(count, 2), "same latent"),
    ],
)
def test_samplers_that_are_refused(sample: Callable[..., Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_sampler(sample)
