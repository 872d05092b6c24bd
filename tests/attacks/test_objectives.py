"""The cosine distance: exact where 1 − cosine is rounding, with the derivative of 1 − cosine."""

import pytest
import torch
from torch.func import vmap

from fedaudit.attacks.objectives import cosine_distance


@pytest.mark.parametrize("apart", [1e-6, 1e-4, 1e-2, 1.0])
def test_cosine_distance_in_single_precision(apart: float) -> None:
    noise = torch.Generator().manual_seed(0)
    target = [torch.randn(40, 9, generator=noise), torch.randn(30, generator=noise)]
    trial = [3 * b + apart * torch.randn(b.shape, generator=noise) for b in target]
    trial = [a.requires_grad_() for a in trial]
    found = cosine_distance(trial, target)
    derivative = torch.cat([g.flatten() for g in torch.autograd.grad(found, trial)])

    precise = torch.cat([a.detach().double().flatten() for a in trial]).requires_grad_()
    other = torch.cat([b.double().flatten() for b in target])
    expected = 1 - torch.nn.functional.cosine_similarity(precise, other, dim=0)
    (slope,) = torch.autograd.grad(expected, precise)
    # In units of what rounding single precision does to unit vectors that are so close.
    assert float(found.detach()) == pytest.approx(
        float(expected.detach()), rel=max(1e-4, 1e-6 / apart)
    )
    assert (derivative - slope).norm() / slope.norm() < max(1e-4, 1e-6 / apart)


def test_cosine_distance_can_be_mapped_over_restarts() -> None:
    noise = torch.Generator().manual_seed(0)
    target = [torch.randn(5, 4, generator=noise)]
    trials = torch.randn(3, 5, 4, generator=noise).requires_grad_()
    found = vmap(lambda trial: cosine_distance([trial], target))(trials)
    alone = torch.stack([cosine_distance([trial], target) for trial in trials])
    torch.testing.assert_close(found, alone)
    slopes = [torch.autograd.grad(x.sum(), trials)[0] for x in (found, alone)]
    torch.testing.assert_close(*slopes)
