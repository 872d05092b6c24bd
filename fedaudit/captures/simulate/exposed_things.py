"""Names for the shared things of an observation, and the observation with some of them only.

What leaks *from what* is asked by showing an attacker one thing at a time: one kind of what was
sent, or of an update one layer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Aggregate, Shared, Update, kind_of


def names_of(shared: Sequence[Shared]) -> tuple[str, ...]:
    """A name for each: its kind, numbered from the second of the same kind on (`update#2`)."""
    kinds = [kind_of(payload) for payload in shared]
    counts = [kinds[: k + 1].count(kind) for k, kind in enumerate(kinds)]
    return tuple(f"{k}#{n}" if n > 1 else k for k, n in zip(kinds, counts, strict=True))


def expose(seen: Observation, only: Iterable[str]) -> Observation:
    """The observation with these shared things only; earlier rounds are cut alike.

    Args:
        seen: What the server saw.
        only: Names as `names_of` gives them. `update:body.0.` is of an update (or aggregate) the
            parameters whose names begin so; several such add up.

    Raises:
        ConfigError: Nothing of that name was shared.
    """
    prefixes: dict[str, list[str]] = {}
    for name in only:
        kind, _, prefix = name.partition(":")
        prefixes.setdefault(kind, []).append(prefix)
    names = names_of(seen.shared)
    if missing := sorted(set(prefixes) - set(names)):
        raise ConfigError(
            f"expose names {missing[0]!r}, and the client shared {', '.join(names)}. Write one of "
            "these, or update:PREFIX for some parameters of an update."
        )
    view = tuple(
        _cut(payload, tuple(prefixes[name]))
        for name, payload in zip(names, seen.shared, strict=True)
        if name in prefixes
    )
    return replace(seen, shared=view, earlier=tuple(expose(e, only) for e in seen.earlier))


def _cut(part: Shared, prefixes: tuple[str, ...]) -> Shared:
    if "" in prefixes:
        return part
    if not isinstance(part, Update | Aggregate):
        raise ConfigError(
            f"expose cuts {kind_of(part)} by {prefixes[0]!r}, and only updates and aggregates have "
            f"parameters to choose from. Write {kind_of(part)!r} alone."
        )
    tensors = {n: t for n, t in part.tensors.items() if n.startswith(prefixes)}
    if not tensors:
        parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in part.tensors))
        raise ConfigError(
            f"expose: no parameter of the {kind_of(part)} begins with {prefixes[0]!r}; they begin "
            f"with {parts}."
        )
    return replace(part, tensors=tensors)
