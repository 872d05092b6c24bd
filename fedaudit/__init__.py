"""Audit what federated learning really shares."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedaudit.captures.recording import record_broadcast, record_update, recording

__version__ = "0.1.0"
__all__ = ["__version__", "record_broadcast", "record_update", "recording"]

_LAZY = {
    "record_broadcast": "fedaudit.captures.recording",
    "record_update": "fedaudit.captures.recording",
    "recording": "fedaudit.captures.recording",
}
"""What is imported when it is first used: torch is slow to import."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - as cheap as possible

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
