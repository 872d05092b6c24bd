"""Every attack by its registered name: `from fedaudit.attacks import gan_inversion`.

Installed as `fedaudit.attacks`; see CONTRIBUTING for why the folder stands at the top level.
"""

from typing import Any

if __name__ != "fedaudit.attacks":
    raise ImportError("import fedaudit.attacks, not attacks")

from fedaudit.core.registry import lookup, names, no_attribute


def __getattr__(name: str) -> Any:
    """The class or function of a registered attack, imported when it is asked for."""
    if name not in names("attacks"):
        raise no_attribute(__name__, name, names("attacks"))
    return lookup("attacks", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *names("attacks")})
