"""QSGD: its levels, its buckets, and that it is right on average."""

import math

import pytest
import torch

from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create
from fedaudit.defenses.gradient_transforms import Quantize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize(("levels", "bucket"), [(1, None), (4, 8), (7, 1000)])
def test_numbers_are_levels_of_their_buckets_norm(
    levels: int, bucket: int | None, norm: str
) -> None:
    value = torch.randn(1, 5, 6, generator=generator())
    settings = {"levels": levels, "bucket": bucket, "norm": norm}
    (transform,) = create("defenses", "qsgd", settings).replay(1).mean
    sent = transform({"w": value}, generator(1))["w"]
    assert sent.shape == value.shape
    for whole, rounded in zip(
        torch.split(value.flatten(), bucket or 30),
        torch.split(sent.flatten(), bucket or 30),
        strict=True,
    ):
        numbers = whole.tolist()
        scale = math.hypot(*numbers) if norm == "l2" else max(map(abs, numbers))
        for number, level in zip(numbers, (rounded / scale * levels).tolist(), strict=True):
            place = number / scale * levels
            near = {math.floor(place), math.ceil(place)}
            assert min(abs(level - n) for n in near) < 1e-4


@pytest.mark.parametrize("norm", ["l2", "max"])
def test_the_rounding_is_unbiased(norm: str) -> None:
    value = torch.randn(12, generator=generator())
    draws = 20_000
    transform = Quantize(2, 5, "l2" if norm == "l2" else "max")
    batch = {"w": value.expand(draws, -1)}
    sent = transform(batch, generator(1))["w"].double()
    error = sent.std(0) / math.sqrt(draws)
    assert bool(((sent.mean(0) - value).abs() <= 4 * error + 1e-6).all())
    assert torch.equal(transform.expected(batch)["w"], batch["w"])


def test_zeros_stay_zeros_and_numbers_on_a_level_stay() -> None:
    batch = {"w": torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, -4.0]])}
    assert torch.equal(Quantize(5)(batch, generator())["w"], batch["w"])


def test_bytes_of_levels_and_norms() -> None:
    tensors = {"w": torch.zeros(100, 10), "b": torch.zeros(10)}
    # 9 values take 4 bits; 1000 entries have 4 buckets of up to 256, and 10 have one.
    quantized = create("defenses", "qsgd", {"levels": 4, "bucket": 256})
    assert quantized.encoded_bytes(tensors) == 1010 * 4 // 8 + 4 * 5
    # 3 values take 2 bits.
    whole = create("defenses", "qsgd", {"levels": 1, "bucket": None})
    assert whole.encoded_bytes(tensors) == -(-1010 * 2 // 8) + 4 * 2


@pytest.mark.parametrize("settings", [{"levels": 0}, {"bucket": -3}, {"norm": "l3"}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=str(*settings.values())):
        create("defenses", "qsgd", settings)
