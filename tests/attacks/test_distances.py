"""The cosine distance: exact where 1 − cosine is rounding, with the derivative of 1 − cosine."""

import pytest
import torch
from torch.func import vmap

from fedaudit.attacks.search.distances import cosine_distance, orthogonalized_distance
from fedaudit.defenses.censor import orthogonal_gradients


@pytest.mark.parametrize("apart", [1e-6, 1e-4, 1e-2, 1.0])
def test_cosine_distance_in_single_precision(apart: float) -> None:
    noise = torch.Generator().manual_seed(0)
    target = [torch.randn(40, 9, generator=noise), torch.randn(30, generator=noise)]
    dummy = [3 * b + apart * torch.randn(b.shape, generator=noise) for b in target]
    dummy = [a.requires_grad_() for a in dummy]
    found = cosine_distance(dummy, target)
    derivative = torch.cat([g.flatten() for g in torch.autograd.grad(found, dummy)])

    precise = torch.cat([a.detach().double().flatten() for a in dummy]).requires_grad_()
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
    dummies = torch.randn(3, 5, 4, generator=noise).requires_grad_()
    found = vmap(lambda dummy: cosine_distance([dummy], target))(dummies)
    alone = torch.stack([cosine_distance([dummy], target) for dummy in dummies])
    torch.testing.assert_close(found, alone)
    slopes = [torch.autograd.grad(x.sum(), dummies)[0] for x in (found, alone)]
    torch.testing.assert_close(*slopes)


def test_turned_distance_is_zero_for_the_right_gradient_only() -> None:
    noise = torch.Generator().manual_seed(0)
    true = {
        f"{k}": torch.randn(size, 9, generator=noise) * 10 ** (k / 4)
        for k, size in enumerate(range(2, 42))
    }
    true["single"] = torch.ones(1)  # has no right angle, and is left out
    rounds = [orthogonal_gradients({n: v[None] for n, v in true.items()}, noise) for _ in range(3)]
    sent = [torch.cat([one[name] for one in rounds]) for name in true]
    right = [5 * value for value in true.values()]  # in other units
    assert float(orthogonalized_distance(right, sent)) < 1e-6
    wrong = [
        torch.randn(v.shape, generator=noise) * float(v.norm()) / max(1, v.numel()) ** 0.5
        for v in true.values()
    ]
    assert 0.6 < float(orthogonalized_distance(wrong, sent)) < 1.6
    once = float(orthogonalized_distance(wrong, [value[0] for value in sent]))
    assert once == float(orthogonalized_distance(wrong, [value[:1] for value in sent]))
    longer = [v * (1 + k % 2) for k, v in enumerate(true.values())]
    assert float(orthogonalized_distance(longer, sent)) > 1
