"""Settings of defenses: what they may be, and how they are stated."""

from dataclasses import fields
from typing import Any


def require(holds: bool, rule: str, value: object) -> None:
    """Refuse a setting that does not keep to its rule.

    Args:
        holds: Whether it does.
        rule: In words, such as "std must be ≥ 0".
        value: What was set.

    Raises:
        ValueError: It does not.
    """
    if not holds:
        raise ValueError(f"{rule}, not {value}")


def settings_of(defense: Any) -> dict[str, Any]:
    """All settings of a defense, a dataclass, by name, as `DefenseFacts` state them."""
    return {field.name: getattr(defense, field.name) for field in fields(defense)}
