"""Nouns."""

from collections.abc import Callable

import torch

from fedaudit.core.capture import Capture


def test_an_observation_moves_as_a_whole(intercept: Callable[..., Capture]) -> None:
    """Every tensor, wherever it hangs; the meta device stands for one that is not here."""
    seen = intercept(grant=("labels",)).seen
    moved = seen.to("meta")
    assert seen.update is not None
    assert moved.update is not None
    assert moved.labels is not None
    tensors = [*moved.before.values(), *moved.update.tensors.values(), moved.labels]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.update.tensors.keys() == seen.update.tensors.keys()
    assert all(tensor.device.type == "cpu" for tensor in seen.before.values())
    assert moved.training == seen.training
    assert torch.equal(seen.to("cpu").before["head.weight"], seen.before["head.weight"])
