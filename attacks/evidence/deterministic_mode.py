"""Forward passes without anything random, in which a network stays as it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fedaudit.models.batch_norm import batch_norm_layers, preserve_modes


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Batch norm does not remember what it sees inside the block; its output stays the same."""
    norms = batch_norm_layers(model).values()
    tracking = [m for m in norms if m.training and m.track_running_stats]
    for layer in tracking:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in tracking:
            layer.track_running_stats = True


@contextmanager
def deterministic(model: nn.Module) -> Iterator[None]:
    """Nothing random runs inside the block: batch norm keeps its mode, all else evaluates."""
    norms = {id(layer) for layer in batch_norm_layers(model).values()}
    with preserve_modes(model), still(model):
        for module in model.modules():
            if id(module) not in norms:
                module.training = False
        yield


@contextmanager
def drawing(model: nn.Module) -> Iterator[None]:
    """What draws (dropout, stochastic depth) does so inside the block; all else keeps its mode.

    Layers without parts, parameters and buffers, that is: in training mode others do more, such
    as return what auxiliary heads say, or remember statistics.
    """
    with preserve_modes(model), still(model):
        for module in model.modules():
            if _is_bare(module):
                module.training = True
        yield


def _is_bare(module: nn.Module) -> bool:
    """Whether a layer has nothing that learns, remembers or is a layer itself."""
    held = (module.children(), module.parameters(), module.buffers())
    return all(next(iter(each), None) is None for each in held)
