"""Audit what federated learning really shares.

`attack` rebuilds the images behind one model update, `audit` runs a study, `load` reads a run;
`recording` and `tap` record a real federation.
"""

from typing import TYPE_CHECKING, Any

from fedaudit.core import version

if TYPE_CHECKING:
    from fedaudit.captures.record.flower import tap
    from fedaudit.captures.record.recording import recording
    from fedaudit.captures.record.stateless_recording import record_broadcast, record_update
    from fedaudit.core.reconstruction import Reconstruction
    from fedaudit.library.attack_update import attack
    from fedaudit.library.run_audit import audit
    from fedaudit.library.run_tables import Run, load

__version__ = version.VERSION
__all__ = [
    "Reconstruction",
    "Run",
    "__version__",
    "attack",
    "audit",
    "load",
    "record_broadcast",
    "record_update",
    "recording",
    "tap",
]

_LAZY = {
    "Reconstruction": "fedaudit.core.reconstruction",
    "Run": "fedaudit.library.run_tables",
    "attack": "fedaudit.library.attack_update",
    "audit": "fedaudit.library.run_audit",
    "load": "fedaudit.library.run_tables",
    "record_broadcast": "fedaudit.captures.record.stateless_recording",
    "record_update": "fedaudit.captures.record.stateless_recording",
    "recording": "fedaudit.captures.record.recording",
    "tap": "fedaudit.captures.record.flower",
}
"""What is imported when it is first used: torch is slow to import."""


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415 - as cheap as possible

    if name not in _LAZY:
        from fedaudit.core.registry import no_attribute  # noqa: PLC0415 - slow

        raise no_attribute(__name__, name, _LAZY)
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
