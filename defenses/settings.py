"""Settings of defenses: what they may be, and how they are stated."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts


def require(holds: bool, rule: str, value: object) -> None:
    """Refuse, by `ValueError`, a setting that breaks its rule, such as "std must be ≥ 0"."""
    if not holds:
        raise ValueError(f"{rule}, not {value}")


def settings_of(defense: Any) -> dict[str, Any]:
    """All settings of a defense, a dataclass, by name, as `DefenseFacts` state them."""
    return {field.name: getattr(defense, field.name) for field in fields(defense)}


def public_settings(name: str) -> Callable[[Any], DefenseFacts]:
    """The method `facts` of a defense that keeps nothing of its settings secret."""
    return lambda defense: DefenseFacts(name, settings_of(defense))


def pass_on(defense: object, step: ClientStep) -> ClientStep:
    """The method `__call__` of a defense that does nothing within a client's step."""
    return step
