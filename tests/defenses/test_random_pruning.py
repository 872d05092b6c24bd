"""Random pruning: how many entries, which, and what is right on average."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.gradient_transforms import KeepRandom


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(count: int = 1) -> dict[str, Tensor]:
    return {"a": torch.ones(count, 20, 30), "b": torch.ones(count, 7)}


def flat(batch: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten(1) for value in batch.values()], 1)


@pytest.mark.parametrize("pruned", [0.0, 0.25, 0.9])
def test_the_share_of_zeros_is_exact(intercept: Callable[..., Capture], pruned: float) -> None:
    settings = {"pruned": pruned}
    update = intercept(defense="random_pruning", settings=settings, network="lenet").seen.update
    bare = intercept(network="lenet").seen.update
    assert isinstance(update, Update)
    assert isinstance(bare, Update)
    sent = torch.cat([value.flatten() for value in update.tensors.values()])
    whole = torch.cat([value.flatten() for value in bare.tensors.values()])
    assert bool((whole != 0).all())
    assert int((sent != 0).sum()) == round((1 - pruned) * len(whole))
    kept = sent != 0
    torch.testing.assert_close(sent[kept] * (1 - pruned), whole[kept])


def test_every_gradient_and_every_draw_has_a_choice_of_its_own() -> None:
    one = flat(KeepRandom(0.5)(ones(2), generator()))
    assert not torch.equal(one[0], one[1])
    assert torch.equal(one, flat(KeepRandom(0.5)(ones(2), generator())))
    assert not torch.equal(one, flat(KeepRandom(0.5)(ones(2), generator(1))))


@pytest.mark.parametrize("rescaled", [True, False])
def test_the_expected_update_is_the_mean_of_many(rescaled: bool) -> None:
    transform = KeepRandom(0.2, rescaled=rescaled)
    mean = flat(transform(ones(4000), generator())).mean(0)
    expected = flat(transform.expected(ones()))[0]
    assert float(expected[0]) == pytest.approx(1.0 if rescaled else 0.2)
    torch.testing.assert_close(mean, expected, atol=0, rtol=0.2)


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\), not 1\.5"):
        create("defenses", "random_pruning", {"pruned": 1.5})
