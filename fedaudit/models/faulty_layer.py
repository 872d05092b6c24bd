"""Which layer of a network cannot take what reaches it, or gives other numbers each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.core.seeds import seed_torch


def failing_layer(network: nn.Module, images: Tensor) -> str:
    """The innermost layer that was running when the forward pass failed; "" for the network."""
    running: list[str] = []

    def before(name: str, _: object) -> None:
        running.append(name)

    def after(*_: object) -> None:
        running.pop()

    with _hooks(network, before, after):
        try:
            with torch.no_grad():
                network(images)
        except Exception:  # whatever it was, it is told where the pass was made first
            return _excerpt(network, running[-1] if running else "")
    return ""


def changing_layer(
    network: nn.Module, images: Tensor, *, seeds: tuple[int, int] = (0, 1)
) -> str | None:
    """The first layer whose outputs differ for the same inputs; None where two passes agree.

    Args:
        network: In the mode in which it is asked of.
        images: `[N, C, H, W]`.
        seeds: Of what either pass draws; with the same, a layer that draws does not differ.
    """
    passes: list[dict[str, tuple[Any, Any]]] = []

    def after(name: str, inputs: Any, outputs: Any) -> None:
        passes[-1].setdefault(name, (inputs, outputs))

    scores = []
    with _hooks(network, lambda *_: None, after), torch.random.fork_rng(devices=[]):
        for seed in seeds:
            seed_torch(seed)
            passes.append({})
            with torch.no_grad():
                scores.append(network(images))
    if _same(scores[0], scores[1]):
        return None
    for name, (inputs, outputs) in passes[0].items():  # inner layers end before outer ones
        again = passes[1].get(name)
        if again is not None and _same(inputs, again[0]) and not _same(outputs, again[1]):
            return _excerpt(network, name)
    return _excerpt(network, "")


def _excerpt(network: nn.Module, name: str) -> str:
    kind = type(network.get_submodule(name)).__name__
    return f"{name} ({kind})" if name else kind


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and torch.equal(one.nan_to_num(), two.nan_to_num())
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return True  # what is no tensor is not looked at


@contextmanager
def _hooks(network: nn.Module, before: Any, after: Any) -> Iterator[None]:
    """`before(name, inputs)` and `after(name, inputs, outputs)` of every layer."""
    handles: list[Any] = []
    for name, module in network.named_modules():
        handles.append(
            module.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs))
        )
        handles.append(
            module.register_forward_hook(
                lambda _, inputs, outputs, name=name: after(name, inputs, outputs)
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
