"""A protection as a configuration states it, and the run that it is configured for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

Value = bool | int | float | str | tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """How large a run is, as far as it is known: what decides how ε adds up.

    Attributes:
        rounds: Of training, in all of which a client takes part unless it is known otherwise.
        clients: In the federation.
        parameters: Numbers in the model.
        images: Of the client that has the fewest.
        batch_size: Images of a local step.
        epochs: Passes over a client's images in a round.
        delta: At which ε is stated where a configuration states no δ.
    """

    rounds: int | None = None
    clients: int | None = None
    parameters: int | None = None
    images: int | None = None
    batch_size: int | None = None
    epochs: int | None = None
    delta: float = 1e-5

    def filled(self, more: "RunSize") -> "RunSize":
        """The run's size with unknown values taken from `more`; δ is this one's."""
        missing = {f.name for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **{name: getattr(more, name) for name in missing})


@dataclass(frozen=True, kw_only=True)
class StatedMechanism:
    """A protection that a file names, with its settings; nothing of it was judged or run.

    Attributes:
        name: As in the catalog: the class or function of the framework ("LocalDpMod").
        place: File, and line or key, within what was read.
        settings: Values by name, those that were stated.
        unread: Settings whose value is known at run time only.
        label: Words of the file that call it differential privacy; "" where none do.
    """

    name: str
    place: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    label: str = ""

    def supplied(self, values: Mapping[str, Value]) -> "StatedMechanism":
        """The same mechanism with values for settings that are known only at run time."""
        values_of_run = {name: values[name] for name in self.unread if name in values}
        unread = tuple(name for name in self.unread if name not in values_of_run)
        return replace(self, settings={**self.settings, **values_of_run}, unread=unread)

    def number(self, name: str, default: float | None = None) -> float | None:
        """A setting as a number in [0, 10¹²]; None where it is not known or is no such number."""
        value = self.settings.get(name, None if name in self.unread else default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= 1e12 else None

    def words(self) -> str:
        """Name and settings, as one reads them in the file."""
        settings = [f"{name} = {_text(value)}" for name, value in self.settings.items()]
        parts = ", ".join([*settings, *(f"{name} = ?" for name in self.unread)])
        return f"{self.name}({parts})" if parts else self.name


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        some = ", ".join(value[:3])
        return f"[{some}, …]" if len(value) > 3 else f"[{some}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
