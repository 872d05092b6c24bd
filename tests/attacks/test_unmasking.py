"""InstaHide's mask: what is learned of it, on real faces that it was not learned from."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.mixture_arithmetic import Coefficients, drawn_from
from fedaudit.attacks.adaptive.unmasking import SignNet, Unmasking, is_gray
from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create
from fedaudit.data.orl import orl

SIDE = 16
TRANSFORMS = create("defenses", "instahide", {"parts": 3}).replay(1).images


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rounds_of(person: int, rounds: int) -> tuple[Tensor, Tensor, Coefficients]:
    """Mixtures of a photo before and behind the mask, `[R, 3, 16, 16]`."""
    faces = orl(size=SIDE).images
    others = [10 * k for k in range(40) if k != person]
    pool = faces[[10 * person, *others[:12]]]
    made = [drawn_from(TRANSFORMS, pool, drawn(seed)) for seed in range(rounds)]
    labels = torch.cat([F.pad(m.labels, (0, 13 - m.labels.shape[1])) for m in made])
    sums = [m.sums for m in made if m.sums is not None]
    return torch.cat(sums), torch.cat([m.images for m in made]), Coefficients.of(labels)


def mean_of(values: list[float]) -> float:
    return sum(values) / len(values)


def right(found: Tensor, true: Tensor) -> float:
    """Share of what is off gray whose sign is right."""
    away = 2 * true - 1
    return float((((2 * found - 1) * away > 0) * away.abs()).sum() / away.abs().sum())


@pytest.mark.slow  # test_mixtures unmasks with a smaller network
def test_signs_are_learned_from_other_faces(tmp_path: Path) -> None:
    """Against the signs of the mean face, and of the masked image itself, which are a coin's."""
    quick = Unmasking(faces=400, sets=150, steps=200, cache=str(tmp_path))
    by_network, by_mean, by_mask = [], [], []
    for person in range(8):
        before, masked, shares = rounds_of(person, 4)
        found, mean = quick.unmasked(TRANSFORMS, masked, shares)
        by_network.append(right(found, before))
        by_mean.append(right(mean.expand_as(before), before))
        by_mask.append(right(masked, before))
    assert mean_of(by_network) > 0.75
    assert abs(mean_of(by_mean) - 0.5) < 0.1 > abs(mean_of(by_mask) - 0.5)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2  # the faces, and what was learned once


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 20, 28), (1, 5, 7)])
def test_the_network_takes_any_size(shape: tuple[int, int, int]) -> None:
    network = SignNet(shape, width=8)
    sizes = torch.rand(2, 3, *shape)
    found = network.unmask(sizes, torch.full((2, 3), 0.5), torch.full((2, 3), 0.25))
    assert found.shape == sizes.shape
    assert bool((found.abs() <= sizes).all())


def test_gray_is_told_by_sizes() -> None:
    """Errors differ from pixel to pixel, colors from patch to patch."""
    before, _, _ = rounds_of(3, 4)
    gray = (2 * before - 1).abs()
    errors = 0.1 * torch.randn(gray.shape, generator=drawn(1))
    tinted = (2 * before * torch.tensor([1.0, 0.85, 0.7])[:, None, None] - 1).abs()
    assert is_gray(gray)
    assert is_gray(gray + errors)
    assert not is_gray(tinted)
    assert not is_gray(tinted + 0.5 * errors)


@pytest.mark.parametrize("steps", [1, 0, -5])
def test_too_few_steps_are_refused_before_anything_runs(steps: int) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        create("attacks", "gan_inversion", {"unmask_steps": steps})
