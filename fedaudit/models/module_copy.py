"""A copy of any module, also of one that keeps what its passes computed."""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copy_detached(module: M) -> M:
    """A deep copy that keeps results of forward passes as numbers, without their history.

    torch copies no tensor that has a history. Layers keep such: activations that hooks collected,
    or the weight that `torch.nn.utils.weight_norm` computes anew in each pass.

    Raises:
        RuntimeError, TypeError: Something else cannot be copied, such as an open file.
    """
    memo: dict[int, Any] = {}
    for one in module.modules():
        for value in vars(one).values():
            _note_histories(value, memo)
    return copy.deepcopy(module, memo)


def _note_histories(value: object, memo: dict[int, Any]) -> None:
    """Note a copy of each tensor with a history, also in lists and dictionaries."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
    elif isinstance(value, list | tuple):
        for item in value:
            _note_histories(item, memo)
    elif isinstance(value, dict):
        for item in value.values():
            _note_histories(item, memo)
