"""Calls a network with other parameters than its own, and leaves its own as they were.

`torch.func.functional_call` does, but for a module that stands under two names, as transformers
share position encodings among blocks: it sets the module's tensors once a name, takes what it set
itself for the module's own the second time, and leaves it there (torch 2.13). Each is set once
here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(network: nn.Module, state: Mapping[str, Tensor], args: tuple[Any, ...]) -> Any:
    """What the network gives for `args` where `state` replaces parameters and buffers by name.

    A tensor of several names is replaced by any of them, under all.

    Args:
        network: It.
        state: Tensors by name, of any precision; the others stay.
        args: What its forward pass takes.

    Raises:
        RuntimeError: The network has no tensor of some name.

    Example:
        >>> shared = nn.Linear(1, 1, bias=False)
        >>> network = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
        >>> float(functional_call(network, {"0.0.weight": torch.tensor([[3.0]])}, (torch.ones(1),)))
        9.0
        >>> shared.weight.item() == 3.0
        False
    """
    once = [id(module) for module in network.modules()]
    if len(once) == sum(1 for _ in network.named_modules(remove_duplicate=False)):
        return torch.func.functional_call(network, dict(state), args)
    own = dict(_named(network, again=True))
    given = {id(own[name]): value for name, value in state.items() if name in own}
    slots = {name: given[id(t)] for name, t in _named(network, again=False) if id(t) in given}
    unknown = {name: value for name, value in state.items() if name not in own}
    return torch.func.functional_call(network, {**slots, **unknown}, args, tie_weights=False)


def _named(network: nn.Module, *, again: bool) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of all modules, of those of several names under each, or once."""
    found: list[tuple[str, Tensor]] = []
    for prefix, module in network.named_modules(remove_duplicate=not again):
        for tensors in (module.named_parameters, module.named_buffers):
            own = tensors(recurse=False, remove_duplicate=False)
            found += [(f"{prefix}.{name}" if prefix else name, one) for name, one in own]
    return found
