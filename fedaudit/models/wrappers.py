"""Takes the network out of what torch wraps around it."""

from torch import nn


def bare(model: nn.Module) -> tuple[nn.Module, str]:
    """The network in wrappers of torch, and what these put before its parameters' names.

    Wrappers for several devices and for compiling compute what the network does, and attacks cannot
    see into them.

    Example:
        >>> bare(nn.DataParallel(nn.Linear(3, 2)))
        (Linear(in_features=3, out_features=2, bias=True), 'module.')
    """
    prefix = ""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model, prefix = model.module, f"{prefix}module."
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model, prefix = compiled, f"{prefix}_orig_mod."
        else:
            return model, prefix
