"""Clipping: the whole update's length, and nothing of its direction."""

import pytest
import torch

from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create


@pytest.mark.parametrize("length", [0.1, 0.5, 4.0])
def test_an_update_is_scaled_as_a_whole_and_no_longer_than_allowed(length: float) -> None:
    (transform,) = create("defenses", "clipping", {"max_norm": 0.5}).replay(3).mean
    direction = {"w": torch.tensor([[[0.6, 0.0]]]), "b": torch.tensor([[-0.8]])}
    clipped = transform({k: v * length for k, v in direction.items()}, torch.Generator())
    for name, value in direction.items():
        torch.testing.assert_close(clipped[name], value * min(length, 0.5))


def test_one_is_the_norm_unless_another_is_set() -> None:
    (transform,) = create("defenses", "clipping", {}).replay(1).mean
    clipped = transform({"w": torch.tensor([[3.0, 4.0]])}, torch.Generator())
    torch.testing.assert_close(clipped["w"], torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_no_norm_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match=f"max_norm must be > 0.*{wrong}"):
        create("defenses", "clipping", {"max_norm": wrong})
