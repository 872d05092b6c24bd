import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from fedaudit.attacks.generators.projections import project_l1


def nearest(value: Tensor, center: Tensor, radius: float) -> Tensor:
    """The same by quadratic programming: x = center + p - q with p, q ≥ 0 and Σ p + q ≤ radius."""
    v, n = (value - center).double().numpy(), len(value)

    def distance(pq: object) -> float:
        return float(((pq[:n] - pq[n:] - v) ** 2).sum())  # type: ignore[index]

    found = minimize(
        distance,
        [radius / (4 * n)] * (2 * n),
        bounds=[(0, None)] * (2 * n),
        constraints={"type": "ineq", "fun": lambda pq: radius - pq.sum()},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return center + torch.tensor(found.x[:n] - found.x[n:])


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6),
    st.floats(0.125, 5, width=32),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_the_nearest_point(values: list[float], radius: float, seed: int) -> None:
    value = torch.tensor(values)
    center = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    found = project_l1(value[None], center[None], radius)[0]
    expected = nearest(value, center, radius)
    assert torch.allclose(found.double(), expected, atol=2e-3)
    assert (found - center).abs().sum() <= radius * (1 + 1e-5) + 1e-5


def test_each_image_on_its_own_and_any_shape() -> None:
    noise = torch.Generator().manual_seed(0)
    value = torch.randn(3, 4, 5, 5, generator=noise)
    center = torch.randn(3, 4, 5, 5, generator=noise)
    radii = torch.tensor([5.0, 1e4, 0.0])
    found = project_l1(value, center, radii)
    size = (found - center).flatten(1).abs().sum(1)
    assert size[0] == pytest.approx(5.0, rel=1e-5)
    assert torch.equal(found[1], value[1])  # it was inside
    assert torch.equal(found[2], center[2])
    for i, radius in enumerate(radii):
        one = project_l1(value[i : i + 1], center[i : i + 1], float(radius))
        assert torch.allclose(one[0], found[i])
    assert torch.allclose(project_l1(found, center, radii), found, atol=1e-5)


def test_a_large_map_lies_on_the_ball() -> None:
    value = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    found = project_l1(value, torch.zeros(1, 1), 1000.0)
    assert found.abs().double().sum().item() == pytest.approx(1000, rel=1e-4)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="≥ 0"):
        project_l1(torch.ones(1, 2), torch.zeros(1, 2), -1.0)
