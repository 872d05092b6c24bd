"""Names of a message's tensors: wrappers' prefixes, numbered lists, and what is a buffer."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
STATISTICS = (".running_mean", ".running_var")
COUNTER = ".num_batches_tracked"
PREFIXES = ("module.", "_orig_mod.", "_module.")
"""What DataParallel, torch.compile and Opacus put before every name."""


def is_buffer(name: str, buffers: Collection[str] | None = None) -> bool:
    """Whether a name is of a buffer: of batch norm, or listed."""
    return f".{name}".endswith((*STATISTICS, COUNTER)) or (buffers is not None and name in buffers)


def plain_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors without a prefix that all names share and that is a wrapper's."""
    named = dict(tensors)
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in named)), None):
        named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    return named


def is_numbered(names: Collection[str]) -> bool:
    """Whether the names are only the places in a list, as the older API of Flower sends them."""
    return bool(names) and all(name == str(place) for place, name in enumerate(names))


def named(tensors: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """The tensors under plain names; those of a list under `names`, if there are as many."""
    if is_numbered(tensors) and len(names) == len(tensors):
        return dict(zip(names, tensors.values(), strict=True))
    return plain_names(tensors)
