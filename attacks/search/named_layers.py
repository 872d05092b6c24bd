"""The layers that a setting names."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from fedaudit.core.errors import AttackError
from fedaudit.core.printable import first_few


def check_layers(layers: Sequence[str], own: Collection[str], shared: Collection[str]) -> None:
    """Refuse beginnings of parameters' names of which one is none, or nothing was shared.

    Args:
        layers: The beginnings; () for no choice.
        own: Names of the network's parameters.
        shared: Names of those that the update says something of.

    Raises:
        AttackError: Names the beginning, and the nearest names that there are.
    """
    said = f"layers = {tuple(layers)}"
    for layer in layers:
        if any(name.startswith(layer) for name in own):
            continue
        modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in own))
        close = get_close_matches(layer, (*modules, *own), n=3, cutoff=0.5)
        hint = f"The nearest are {first_few(close, quote=True)}."
        raise AttackError(
            f"{said}: no parameter of the network begins with {layer!r}. "
            + (hint if close else f"It has {first_few(modules, quote=True)}.")
        )
    if layers and not any(name.startswith(tuple(layers)) for name in shared):
        raise AttackError(
            f"{said}: nothing of that was shared, or it did not change. Choose other layers, or "
            "leave the setting out to take all."
        )
