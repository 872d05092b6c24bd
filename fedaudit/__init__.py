"""Audit what federated learning really shares."""

from typing import TYPE_CHECKING, Any

from fedaudit.core import version

if TYPE_CHECKING:
    from fedaudit.captures.record.flower import tap
    from fedaudit.captures.record.recording import record_broadcast, record_update, recording

__version__ = version.VERSION
__all__ = ["__version__", "record_broadcast", "record_update", "recording", "tap"]

_LAZY = {
    "record_broadcast": "fedaudit.captures.record.recording",
    "record_update": "fedaudit.captures.record.recording",
    "recording": "fedaudit.captures.record.recording",
    "tap": "fedaudit.captures.record.flower",
}
"""What is imported when it is first used: torch is slow to import."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - as cheap as possible

    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "flwr":
            raise
        raise ImportError(
            "fedaudit.tap needs Flower: pip install 'fedaudit[flower]'. Without Flower, record a "
            "training loop with fedaudit.recording."
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
