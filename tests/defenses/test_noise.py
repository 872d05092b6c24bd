"""Noise on the update: its law, its scale, and how an attacker tells it from other transforms."""

import math
from typing import Literal

import pytest
import torch
from scipy import stats

from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create
from fedaudit.defenses.gradient_transforms import Noise, norms

LAWS: dict[str, Literal["gaussian", "laplace"]] = {
    "gaussian_noise": "gaussian",
    "laplace_noise": "laplace",
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", LAWS)
def test_the_law_is_what_the_name_says(name: str) -> None:
    (transform,) = create("defenses", name, {"std": 0.3}).replay(1).mean
    drawn = transform({"w": torch.full((1, 20_000), 2.0)}, generator())["w"].flatten() - 2
    laws = {
        "gaussian_noise": stats.norm(scale=0.3),
        "laplace_noise": stats.laplace(scale=0.3 / math.sqrt(2)),
    }
    fits = {n: float(stats.kstest(drawn.numpy(), law.cdf).pvalue) for n, law in laws.items()}
    assert fits.pop(name) > 0.01
    assert all(p < 1e-6 for p in fits.values())


@pytest.mark.parametrize("name", LAWS)
def test_relative_noise_has_a_share_of_each_gradients_norm(name: str) -> None:
    (transform,) = create("defenses", name, {"std": 0.5, "of": "norm"}).replay(1).mean
    batch = {"w": torch.randn(2, 40, 50, generator=generator(1)), "b": torch.ones(2, 100)}
    batch = {
        n: v * torch.tensor([1.0, 100.0]).view(2, *[1] * (v.dim() - 1)) for n, v in batch.items()
    }
    noisy = transform(batch, generator())
    ratio = norms({n: noisy[n] - batch[n] for n in batch}) / norms(batch)
    assert ratio.tolist() == pytest.approx([0.5, 0.5], rel=0.1)


@pytest.mark.parametrize(("name", "law"), LAWS.items())
def test_an_attacker_can_tell_noise_from_other_acts(
    name: str, law: Literal["gaussian", "laplace"]
) -> None:
    (transform,) = create("defenses", name, {"std": 0.5, "of": "norm"}).replay(7).mean
    assert transform == Noise(0.5, relative=True, law=law)


def test_gradients_keep_their_type_and_each_has_a_draw_of_its_own() -> None:
    batch = {"w": torch.zeros(2, 3, dtype=torch.float64)}
    noisy = Noise(1.0, law="laplace")(batch, generator())["w"]
    assert noisy.dtype == torch.float64
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("settings", [{"std": -0.1}, {"of": "sum"}])
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"-0\.1|sum"):
        create("defenses", name, settings)


@pytest.mark.parametrize("name", LAWS)
def test_a_tenth_is_the_noise_unless_another_is_set(name: str) -> None:
    (transform,) = create("defenses", name, {}).replay(1).mean
    assert transform == Noise(0.1, relative=False, law=LAWS[name])
