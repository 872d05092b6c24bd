"""Which names of a recording are which of a network's: by a prefix, or by their tensors' shapes.

Both may be a stranger's.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from fedaudit.captures.format.tensor_names import Renaming

Shapes = Mapping[str, tuple[int, ...]]
KINDS = frozenset({"weight", "bias", "running_mean", "running_var"})
_TRIED = 64
"""Prefixes that are tried at most."""
_SAMPLE = 32
"""Names on which a prefix is tried first."""


def fitting_prefixes(server: Shapes, network: Shapes) -> dict[tuple[bool, int], list[Renaming]]:
    """Rules for a prefix: whether all names are known then, and how many fit with their shape."""
    fitting: dict[tuple[bool, int], list[Renaming]] = defaultdict(list)
    some = list(server)[:: 1 + len(server) // _SAMPLE]
    for rule in _prefixes(server, network):
        renaming = Renaming((rule,))
        if 4 * sum(renaming.name(name) in network for name in some) >= len(some):
            names = {renaming.name(name): shape for name, shape in server.items()}
            complete = len(names) == len(server) and all(n in network for n in names)
            fitting[complete, sum(network.get(n) == s for n, s in names.items())].append(renaming)
    return fitting


def _prefixes(server: Shapes, network: Shapes) -> list[tuple[str, str]]:
    """Prefixes that the first name may have in the recording and in the network."""
    first = next(iter(server))
    parts = first.split(".")
    rules = []
    for depth in range(min(len(parts), 8)):
        old, rest = ".".join(parts[:depth]), ".".join(parts[depth:])
        for name in network:
            if name == rest or name.endswith(f".{rest}"):
                rules.append((old, name.removesuffix(rest).removesuffix(".")))
    changes = {rule for rule in rules if rule[0] != rule[1]}
    # `a.b → c.b` says no more than `a → c`, which is tried before it.
    return [r for r in dict.fromkeys(rules) if r in changes and not _longer(r, changes)][:_TRIED]


def _longer(rule: tuple[str, str], others: Collection[tuple[str, str]]) -> bool:
    old, new = (part.split(".") for part in rule)
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
        if (".".join(old), ".".join(new)) in others:
            return True
    return False


def match_by_shape(
    server: Shapes, network: Shapes
) -> tuple[dict[str, str] | None, tuple[str, str] | None]:
    """The mapping of shapes and kinds that occur once, and two names that it leaves open.

    None in place of the mapping where the shapes differ.
    """
    ours, theirs = _names_by_shape(network, server), _names_by_shape(server, network)
    mapping = {name: name for name, shape in server.items() if network.get(name) == shape}
    unclear = None
    if {s: len(names) for s, names in ours.items()} != {s: len(n) for s, n in theirs.items()}:
        return None, None
    for shape, names in theirs.items():
        for name in names:
            fitting = [n for n in ours[shape] if same_kind(name, n)]
            rivals = [n for n in names if n != name and any(same_kind(n, f) for f in fitting)]
            if len(fitting) == 1 and not rivals:
                mapping[name] = fitting[0]
            elif unclear is None and rivals:
                unclear = (name, rivals[0])
            elif not fitting:
                return None, None
    return mapping, unclear


def _names_by_shape(shapes: Shapes, other: Shapes) -> dict[tuple[int, ...], list[str]]:
    """Names of each shape that the other side does not have under the same name."""
    names: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        if other.get(name) != shape:
            names[shape].append(name)
    return names


def same_kind(one: str, other: str) -> bool:
    """Whether the last parts of two names do not contradict each other, as weight and bias do."""
    kinds = {one.rpartition(".")[2], other.rpartition(".")[2]}
    return len(kinds) == 1 or not kinds <= KINDS
