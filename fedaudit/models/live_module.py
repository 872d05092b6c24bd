"""A network that its owner holds in memory, for attacks that are called from Python."""

from collections.abc import Collection

import torch
from torch import nn

from fedaudit.core.errors import UsageError, first_line
from fedaudit.models.module_copy import copy_detached

FACTORY = f"{__name__}:copy_module"


def copy_module(
    *, module: nn.Module, redrawn: Collection[str] = (), fingerprint: str = ""
) -> nn.Module:
    """A copy of a network, in single precision or better; the owner's stays as it is.

    Args:
        module: From images `[N, C, H, W]` to scores `[N, K]`.
        redrawn: Names of parameters whose values the copy must not hold: their layers start anew.
        fingerprint: Of what the network computes; caches tell networks of equal layers apart by it.

    Raises:
        UsageError: It cannot be copied, or a layer has no `reset_parameters` to start anew with.
    """
    try:
        twin = copy_detached(module)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"the model cannot be copied: {first_line(error)}. Keep open files, locks and the like "
            "out of its attributes."
        ) from error
    for name in {name.rpartition(".")[0] for name in redrawn}:
        layer = twin.get_submodule(name)
        reset = getattr(layer, "reset_parameters", None)
        if reset is None:
            raise UsageError(
                f"{name or type(layer).__name__!r} stays on the devices, and has no method "
                "reset_parameters by which an attacker could start it anew: give it one."
            )
        reset()
    for layer in twin.modules():  # hooks of training, as per-sample gradients take them
        layer._backward_hooks.clear()
        layer._backward_pre_hooks.clear()
    twin.requires_grad_(True).zero_grad(set_to_none=True)
    precision = next((p.dtype for p in twin.parameters()), torch.float32)
    return twin.to(torch.promote_types(precision, torch.float32))
