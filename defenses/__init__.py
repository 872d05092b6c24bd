"""Every registered defense by its class: `from fedaudit.defenses import DPSGD`.

Installed as `fedaudit.defenses`; see CONTRIBUTING for why the folder stands at the top level.
"""

from typing import Any

if __name__ != "fedaudit.defenses":
    raise ImportError("import fedaudit.defenses, not defenses")

from fedaudit.core.registry import lookup, no_attribute, object_names


def __getattr__(name: str) -> Any:
    """The class of a registered defense, imported when it is asked for."""
    registry = object_names("defenses")
    if name not in registry:
        raise no_attribute(__name__, name, registry)
    return lookup("defenses", registry[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *object_names("defenses")})
