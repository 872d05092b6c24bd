"""Several defenses at one client, in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from fedaudit.core.client import ClientStep
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import DefenseFacts
from fedaudit.core.protocols import Defense
from fedaudit.core.registry import create
from fedaudit.defenses.composition import apply_defense


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Defenses one after the other; what is sent passes the first one first.

    What a defense does before training (to the photos, the network, the optimizer), the last one
    does first. Guarantee: what its parts give, composed by `defenses.composition`; a part that
    reads the photos after the noise breaks it.

    Args:
        of: The defenses in the order in which they act on what is sent: names, or tables with a
            `name` and settings.
    """

    of: tuple[str | Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        if not self.of:
            raise ConfigError("chain: of must name at least one defense, such as ['clipping']")
        _ = self.parts

    @cached_property
    def parts(self) -> tuple[Defense, ...]:
        """The defenses themselves; a `ConfigError` where one has no name or wrong settings."""
        return tuple(_create(part) for part in self.of)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Wrap the client's step in every defense of the chain."""
        return reduce(lambda inner, part: apply_defense(part, inner), self.parts, step)

    keeps_claims = True

    def facts(self) -> DefenseFacts:
        """Public facts of the chain itself; those of its parts are in `parts_of(...)`."""
        withheld = tuple(name for part in self.parts for name in part.facts().withheld)
        return DefenseFacts("chain", {"of": self.of}, withheld)


def parts_of(defense: Defense) -> tuple[Defense, ...]:
    """The defenses that one is made of, in order; itself if it is no chain."""
    if not isinstance(defense, Chain):
        return (defense,)
    return tuple(inner for part in defense.parts for inner in parts_of(part))


def change_each(defense: Defense, change: Callable[[Defense], Defense]) -> Defense:
    """The defense, or the chain of them, with `change` done to each that is no chain."""
    if not isinstance(defense, Chain):
        return change(defense)
    parts = []
    for statement, part in zip(defense.of, defense.parts, strict=True):
        new = change_each(part, change)
        name = statement if isinstance(statement, str) else statement["name"]
        parts.append(statement if new is part else {"name": name, **new.facts().settings})
    return Chain(of=tuple(parts))


def _create(part: str | Mapping[str, Any]) -> Defense:
    table = {"name": part} if isinstance(part, str) else dict(part)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"chain: a part must be a name or have one, not {part!r}")
    defense: Defense = create("defenses", name, table)
    return defense
