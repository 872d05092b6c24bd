"""DPLC (PrivacyFace) against its definition and its derived sensitivity."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dp_accounting import gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from fedaudit.core.capture import Capture
from fedaudit.core.errors import DataError
from fedaudit.core.shared import ClusterCenters, Update
from fedaudit.defenses.dplc import DPLC, gaussian_sigma
from fedaudit.federation.simulation import Simulation


def around(center: Tensor, angle: float, count: int, noise: torch.Generator) -> Tensor:
    """`count` unit vectors within `angle` of the unit vector `center`."""
    away = torch.randn(count, len(center), generator=noise, dtype=center.dtype)
    away = F.normalize(away - (away @ center)[:, None] * center, dim=1)
    turned = angle * torch.rand(count, 1, generator=noise, dtype=center.dtype)
    return turned.cos() * center + turned.sin() * away


def basis(*axes: int, dim: int = 16) -> list[Tensor]:
    return [torch.eye(dim)[axis] for axis in axes]


# --- clusters -----------------------------------------------------------------------------------


def test_largest_group_first_and_each_row_once() -> None:
    noise = torch.Generator().manual_seed(0)
    groups = [
        around(axis, 0.1, size, noise) for axis, size in zip(basis(0, 1, 2), (4, 9, 2), strict=True)
    ]
    rows = torch.cat(groups) * torch.linspace(0.5, 3, 15)[:, None]  # lengths must not matter
    found = DPLC(radius=0.3, min_size=3, max_clusters=5).clusters(rows)
    assert [set(members.tolist()) for members in found] == [set(range(4, 13)), set(range(4))]


@given(
    seed=st.integers(0, 2**31),
    radius=st.floats(0.1, 1.5),
    smallest=st.integers(1, 5),
    most=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_clusters_keep_their_promises(seed: int, radius: float, smallest: int, most: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    rows = torch.randn(20, 4, generator=noise)
    found = DPLC(radius=radius, min_size=smallest, max_clusters=most).clusters(rows)
    angles = (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T).clamp(-1, 1).acos()
    angles.fill_diagonal_(0)
    assert len(found) <= most
    left = set(range(20))
    for members in (set(m.tolist()) for m in found):
        assert len(members) >= smallest
        assert members <= left
        # The greedy choice, by exhaustion: no remaining row has more remaining neighbors.
        balls = [{j for j in left if angles[i, j] <= radius} for i in left]
        assert members in balls
        assert len(members) == max(map(len, balls))
        left -= members
    rest = [{j for j in left if angles[i, j] <= radius} for i in left]
    assert len(found) == most or max(map(len, rest), default=0) < smallest


def test_nothing_is_released_of_too_few() -> None:
    defense = DPLC(min_size=4)
    for rows in (torch.eye(8)[:3], torch.zeros(0, 8)):
        assert defense.release(rows, torch.Generator()).shape == (0, 8)


# --- sensitivity --------------------------------------------------------------------------------


def circle(*angles: float) -> Tensor:
    """Unit rows at these angles, in a plane."""
    turns = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([turns.cos(), turns.sin()], dim=1)


@pytest.mark.parametrize("radius", [0.1, 0.7, 1.3, 1.5])
@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_the_bound_is_attained(radius: float, size: int) -> None:
    """Through the clustering itself, so that a smaller sensitivity would be false.

    Of three and more, the cluster is found around the first row before, the second one after.
    """
    near = 0.999999 * radius  # not on the edge, where rounding decides
    held = [0.0, near, *[near / 2] * size][: size - 1]
    far = {1: math.inf, 2: near}.get(size, 2 * near)
    defense = DPLC(radius=radius, min_size=size, max_clusters=1)
    first, second = (circle(*held, end) for end in (-near, min(far, math.pi - near)))
    for rows in (first, second):
        (members,) = defense.clusters(rows)
        assert len(members) == size
    moved = float((first.mean(0) - second.mean(0)).norm())
    assert moved <= defense.sensitivity(size) + 1e-12
    assert moved == pytest.approx(defense.sensitivity(size), rel=1e-5)


# --- the Gaussian mechanism ---------------------------------------------------------------------


def spent(sigma: float, sensitivity: float, epsilon: float) -> float:
    """δ of Gaussian noise, Balle & Wang (2018), equation 6, with scipy's normal distribution."""
    a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b))


SETTINGS = [
    (1.0, 1.0, 1e-5),
    (0.3, 0.1, 1e-6),
    (2.0, 8.0, 1e-3),
    (0.01, 0.5, 0.1),
    (1e-4, 1.0, 1e-5),
]


@pytest.mark.parametrize(("sensitivity", "epsilon", "delta"), SETTINGS)
def test_sigma_is_the_least_that_suffices(sensitivity: float, epsilon: float, delta: float) -> None:
    sigma = gaussian_sigma(sensitivity, epsilon, delta)
    assert spent(sigma, sensitivity, epsilon) == pytest.approx(delta, rel=1e-6)
    assert spent(sigma, sensitivity, epsilon) <= delta * (1 + 1e-9)
    assert spent(0.999 * sigma, sensitivity, epsilon) > delta


@pytest.mark.parametrize(("sensitivity", "epsilon", "delta"), SETTINGS)
def test_sigma_agrees_with_dp_accounting(sensitivity: float, epsilon: float, delta: float) -> None:
    theirs = sensitivity * gaussian_mechanism.get_sigma_gaussian(epsilon, delta)
    assert gaussian_sigma(sensitivity, epsilon, delta) == pytest.approx(theirs, rel=1e-4)


@given(sensitivity=st.floats(1e-3, 10), epsilon=st.floats(0.01, 0.99), delta=st.floats(1e-9, 1e-2))
@settings(max_examples=100, deadline=None)
def test_sigma_is_monotone_and_below_the_classical_one(
    sensitivity: float, epsilon: float, delta: float
) -> None:
    sigma = gaussian_sigma(sensitivity, epsilon, delta)
    assert sigma <= sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    assert gaussian_sigma(sensitivity, epsilon * 1.5, delta) < sigma
    assert gaussian_sigma(sensitivity, epsilon, delta * 1.5) < sigma
    assert gaussian_sigma(sensitivity * 1.5, epsilon, delta) == pytest.approx(1.5 * sigma)


@pytest.mark.parametrize("epsilon", [100.0, 800.0])
def test_a_large_epsilon_needs_little_noise(epsilon: float) -> None:
    assert 0 < gaussian_sigma(1.0, epsilon, 1e-5) < 0.12


def test_the_released_noise_is_that_of_the_mechanism() -> None:
    """In many dimensions the direction of mean + noise tells how much noise there was."""
    dim, size = 20_000, 50
    rows = F.normalize(torch.ones(size, dim), dim=1)
    defense = DPLC(epsilon=50.0, radius=0.5, min_size=2, max_clusters=1)
    sigma = gaussian_sigma(defense.sensitivity(size), 50.0, defense.delta)
    (center,) = defense.release(rows, torch.Generator().manual_seed(0))
    cosine = float(center @ rows[0])
    shown = math.sqrt((1 / cosine**2 - 1) / (dim - 1))
    # Four standard errors of a norm of `dim` normals, and of the noise along the mean.
    assert shown == pytest.approx(sigma, rel=4 * (1 / math.sqrt(2 * dim) + sigma))


def shown_noise(center: Tensor, mean: Tensor) -> float:
    """Standard deviation of the noise in a released center, from the angle that it turned by.

    In many dimensions mean + noise has a right angle between its parts.
    """
    cosine = float(center @ F.normalize(mean, dim=0))
    return float(mean.norm()) * math.sqrt((1 / cosine**2 - 1) / (len(mean) - 1))


def test_noise_is_for_the_clusters_rows_not_for_all() -> None:
    """Few of many rows: the planted fault, noise for the mean of all, is thirteen times too low."""
    dim, size, others = 4_000, 5, 60
    noise = torch.Generator().manual_seed(1)
    near = around(torch.eye(dim)[0], 0.2, size, noise)
    far = F.normalize(torch.randn(others, dim, generator=noise), dim=1)  # near to nobody
    rows = torch.cat([far, near])
    defense = DPLC(epsilon=50.0, radius=0.5, min_size=2, max_clusters=3)
    (members,) = defense.clusters(rows)
    assert members.tolist() == list(range(others, others + size))
    (center,) = defense.release(rows, torch.Generator().manual_seed(0))
    sigma = gaussian_sigma(2 * math.sin(1.5 * 0.5) / size, 50.0, defense.delta)
    # Four standard errors of a norm of `dim` normals, and of the noise along the mean.
    error = 4 * (1 / math.sqrt(2 * dim) + sigma)
    assert shown_noise(center, near.mean(0)) == pytest.approx(sigma, rel=error)


@given(seed=st.integers(0, 2**31), radius=st.floats(0.2, 1.5), spread=st.floats(0.05, 2.0))
@settings(max_examples=60, deadline=None)
def test_neighbors_of_the_same_clusters_are_no_further_apart_than_the_noise_is_for(
    seed: int, radius: float, spread: float
) -> None:
    """Through the clustering itself: any row replaced by any other, where no membership changes.

    What the claim does not cover is when it does: then clusters themselves differ.
    """
    noise = torch.Generator().manual_seed(seed)
    axis = torch.eye(6, dtype=torch.float64)[0]
    rows = torch.cat(
        [around(axis, min(spread, 3.0), 5, noise), around(-axis, min(spread, 3.0), 3, noise)]
    )
    defense = DPLC(radius=radius, min_size=1, max_clusters=4)
    before = defense.clusters(rows)
    for k in range(len(rows)):
        other = rows.clone()
        other[k] = around(rows[k], math.pi, 1, noise)[0]
        after = defense.clusters(other)
        if [m.tolist() for m in before] != [m.tolist() for m in after]:
            continue
        for members in before:
            moved = float((rows[members].mean(0) - other[members].mean(0)).norm())
            assert moved <= defense.sensitivity(len(members)) + 1e-9


# --- in the client ------------------------------------------------------------------------------

Intercept = Callable[..., Capture]


def test_the_head_stays_and_unit_centers_leave(intercept: Intercept) -> None:
    # The 128-dimensional rows of a fresh head are nearly orthogonal: ρ must be near π/2.
    captured = intercept(batch=4, defense="dplc", settings={"min_size": 2, "radius": 1.5})
    update, centers = captured.seen.shared
    assert isinstance(update, Update)
    assert isinstance(centers, ClusterCenters)
    names = set(captured.seen.before) | set(update.tensors)
    assert names
    assert not any(name.startswith("head.") for name in names)
    assert "embedding.weight" in update.tensors
    assert 1 <= len(centers.centers) <= 2
    torch.testing.assert_close(centers.centers.norm(dim=1), torch.ones(len(centers.centers)))
    (claim,) = captured.claims
    assert claim.epsilon == len(centers.centers) * 1.0
    assert claim.delta == pytest.approx(len(centers.centers) * 1e-5)
    assert claim.covers == ("cluster_centers",)
    assert {"update", "cluster membership", "counts"} <= {gap.what for gap in claim.gaps}


def test_people_too_far_apart_release_no_centers(intercept: Intercept) -> None:
    captured = intercept(defense="dplc", settings={"min_size": 2, "radius": 0.01})
    assert [type(shared) for shared in captured.seen.shared] == [Update]
    assert captured.claims == ()


def test_too_few_people_for_any_cluster_are_refused(intercept: Intercept) -> None:
    with pytest.raises(DataError, match=r"min_size = 400.*Lower min_size"):
        intercept(defense="dplc", settings={"min_size": 400})


def test_the_backbone_is_that_of_an_undefended_client(
    federate: Callable[..., Simulation], intercept: Intercept
) -> None:
    """What the claim does not cover travels in clear: the update itself carries no noise."""
    two = [intercept(batch=2, simulation=federate(defense="dplc"), seed=seed) for seed in (0, 0)]
    first, again = (captured.seen.update for captured in two)
    assert first is not None
    assert again is not None
    assert all(torch.equal(first.tensors[k], again.tensors[k]) for k in first.tensors)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"radius": 0.0},
        {"radius": math.pi / 2},
        {"min_size": 0},
        {"max_clusters": 0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DPLC(**wrong)
