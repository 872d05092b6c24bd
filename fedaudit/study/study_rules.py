"""What a key of a study file may hold. Each rule reads a value, refuses a wrong one with what to
write instead, and states itself as JSON schema.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args
from unicodedata import category

from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.scenario import SAFE_NAME, Adapt, Choice


@dataclass(frozen=True)
class Place:
    """Where a key stands: the file, the table in it, and the key."""

    file: str
    table: str = ""
    key: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.table) if part)

    def wrong(self, must: str, value: object, example: str) -> ConfigError:
        """The error for a value that breaks a rule."""
        return ConfigError(
            f"{self}: {self.key} must be {must}, not {_shown(value)}. Write for instance {example}."
        )


class Rule(Protocol):
    """How one key is read."""

    def read(self, value: object, place: Place) -> Any:
        """The value for the dataclass.

        Raises:
            ConfigError: The value breaks the rule.
        """
        ...

    def schema(self) -> dict[str, Any]:
        """The rule as JSON schema."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    example: int
    high: int = 2**31 - 1

    def read(self, value: object, place: Place) -> int:
        """Read it; true and false are not numbers."""
        if not isinstance(value, int) or isinstance(value, bool) or value < self.low:
            must = f"a whole number of at least {self.low}"
            raise place.wrong(must, value, f"{place.key} = {self.example}")
        if value > self.high:
            must = f"at most {self.high}"
            raise place.wrong(must, value, f"{place.key} = {self.example}")
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number:
    """A number above `low` (or at least `low`), up to `high` (or below it)."""

    low: float
    high: float
    example: float
    low_open: bool = True
    high_open: bool = False

    def read(self, value: object, place: Place) -> float:
        """Read it; whole numbers count, infinity and NaN do not."""
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        if not (ok and math.isfinite(value) and self._inside(value)):  # type: ignore[arg-type]
            low = f"{'above' if self.low_open else 'of at least'} {self.low:g}"
            high = f" and {'below' if self.high_open else 'at most'} {self.high:g}"
            must = f"a number {low}{high if math.isfinite(self.high) else ''}"
            raise place.wrong(must, value, f"{place.key} = {self.example:g}")
        return float(value)  # type: ignore[arg-type]

    def _inside(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        low = {"exclusiveMinimum" if self.low_open else "minimum": self.low}
        high = {"exclusiveMaximum" if self.high_open else "maximum": self.high}
        return {"type": "number", **low, **(high if math.isfinite(self.high) else {})}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: object, place: Place) -> bool:
        """Read it; 0, 1 and "yes" are refused."""
        if not isinstance(value, bool):
            raise place.wrong("true or false", value, f"{place.key} = true")
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text:
    """Text for people; control characters would reach a terminal, so they are refused."""

    lines: bool = True

    def read(self, value: object, place: Place) -> str:
        """Read it; line breaks are fine where `lines` says so."""
        allowed = "\n\t" if self.lines else ""
        ok = isinstance(value, str) and not any(
            category(c) == "Cc" and c not in allowed for c in value
        )
        if not isinstance(value, str) or not ok:
            must = f"text{'' if self.lines else ' on one line'} without control characters"
            raise place.wrong(must, value, f'{place.key} = "…"')
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"type": "string"}


@dataclass(frozen=True)
class Name:
    """A name that becomes part of file names."""

    example: str

    def read(self, value: object, place: Place) -> str:
        """Read it; "--" separates the parts of a file name and is refused."""
        if not isinstance(value, str) or not re.fullmatch(SAFE_NAME, value):
            must = "a name of letters, digits and . _ + - (no --), at most 48, as files carry it"
            raise place.wrong(must, value, f'{place.key} = "{self.example}"')
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"type": "string", "pattern": f"^{SAFE_NAME}$"}


@dataclass(frozen=True)
class OneOf:
    """One of a few words; `words` is called late, because the words may be costly to import."""

    kind: str
    words: Callable[[], tuple[str, ...]]

    def read(self, value: object, place: Place) -> str:
        """Read it; a wrong word names the closest right one."""
        words = self.words()
        if not isinstance(value, str):
            raise place.wrong(f"one of {', '.join(words)}", value, f'{place.key} = "{words[0]}"')
        if value not in words:
            raise UnknownNameError(self.kind, value, words, where=str(place))
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"enum": list(self.words())}


@dataclass(frozen=True)
class Plugin:
    """A plugin: its name, or a table with `name`, an optional `label` and settings.

    Attributes:
        example: A name.
        adapts: Whether the table may also say what the plugin makes of defenses (`adapt`).
        sweeps: Whether the table may hold several values of one setting
            (`sweep = {noise = [1, 2]}`), which makes one plugin of each.
    """

    example: str
    adapts: bool = False
    sweeps: bool = False

    def read(self, value: object, place: Place) -> Choice:
        """Read it; whether such a plugin exists is checked once the whole file is read."""
        written = f'{place.key} = "{self.example}", or {{name = "{self.example}", …}}'
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise place.wrong("a name or a table with a name", value, written)
        own = {"name", "label"} | ({"adapt"} if self.adapts else set())
        settings = {str(k): v for k, v in table.items() if k not in own}
        for key, setting in settings.items():
            if not _is_plain(setting):
                inside = Place(place.file, place.table, f"{place.key}.{key}")
                raise inside.wrong("finite numbers, text, lists or tables", setting, f"{key} = 1")
        adapt: Any = "known"
        if self.adapts and "adapt" in table:
            inside = Place(place.file, place.table, f"{place.key}.adapt")
            adapt = OneOf("way to adapt", lambda: get_args(Adapt)).read(table["adapt"], inside)
        choice = Choice(table["name"], settings, label=table.get("label", ""), adapt=adapt)
        Name("strong").read(choice.label, Place(place.file, place.table, f"{place.key}.label"))
        return choice

    def read_all(self, value: object, place: Place) -> tuple[Choice, ...]:
        """One choice, or one for each value of a sweep; labels carry the value."""
        if not (self.sweeps and isinstance(value, Mapping) and "sweep" in value):
            return (self.read(value, place),)
        swept = value["sweep"]
        example = "sweep = {noise_multiplier = [0.1, 1.0]}"
        inside = Place(place.file, place.table, f"{place.key}.sweep")
        if not isinstance(swept, Mapping) or len(swept) != 1:
            raise inside.wrong("a table with one setting and its values", swept, example)
        setting, values = next(iter(swept.items()))
        if not isinstance(values, list | tuple) or not values:
            raise inside.wrong("a list of values that is not empty", values, example)
        rest = {k: v for k, v in value.items() if k != "sweep"}
        if setting in rest:
            raise ConfigError(f"{inside}: {setting} is set beside its sweep. Remove one.")
        label = rest.get("label", rest.get("name"))
        tables = [{**rest, "label": f"{label}-{v}", setting: v} for v in values]
        return tuple(self.read(table, place) for table in tables)

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        table = {"name": {"type": "string"}, "label": Name("").schema()}
        if self.sweeps:
            values = {"type": "array", "minItems": 1}
            sweep = {"type": "object", "minProperties": 1, "maxProperties": 1}
            table["sweep"] = {**sweep, "additionalProperties": values}
        if self.adapts:
            table["adapt"] = {"enum": list(get_args(Adapt))}
        plugin = {"type": "object", "required": ["name"], "properties": table}
        return {"anyOf": [{"type": "string", "examples": [self.example]}, plugin]}


@dataclass(frozen=True)
class Many:
    """A list of distinct things, not empty unless `may_be_empty`."""

    item: Rule
    example: str
    may_be_empty: bool = False
    identity: Callable[[Any], object] = field(default=lambda item: item)

    def read(self, value: object, place: Place) -> tuple[Any, ...]:
        """Read it; what stands twice is named."""
        written = f"{place.key} = [{self.example}]"
        if not isinstance(value, list | tuple) or not (value or self.may_be_empty):
            must = "a list" if self.may_be_empty else "a list that is not empty"
            raise place.wrong(must, value, written)
        read: dict[object, Any] = {}
        for index, item in enumerate(value):
            inside = Place(place.file, place.table, f"{place.key}[{index}]")
            plugin = isinstance(self.item, Plugin)
            several = self.item.read_all if isinstance(self.item, Plugin) else self._one
            for thing in several(item, inside):
                if (identity := self.identity(thing)) in read:
                    labels = 'Remove one, or tell them apart: {name = "…", label = "strong", …}.'
                    advice = labels if plugin else "Remove one."
                    raise ConfigError(f"{place}: {place.key} has {identity!r} twice. {advice}")
                read[identity] = thing
        return tuple(read.values())

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        least = {} if self.may_be_empty else {"minItems": 1}
        return {"type": "array", "items": self.item.schema(), **least}

    def _one(self, value: object, place: Place) -> tuple[Any, ...]:
        return (self.item.read(value, place),)


@dataclass(frozen=True)
class Inner:
    """A table in a table, whose keys have rules of their own; `make` turns what was read."""

    rules: Mapping[str, Rule]
    make: Callable[[dict[str, Any]], Any]

    def read(self, value: object, place: Place) -> Any:
        """Read it."""
        table = f"{place.table}.{place.key}" if place.table else place.key
        return self.make(read_table(value, self.rules, Place(place.file, table)))

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return table_schema(self.rules)


def read_table(table: object, rules: Mapping[str, Rule], place: Place) -> dict[str, Any]:
    """Read a table by its rules; keys that it lacks are absent from the result.

    Raises:
        ConfigError: Not a table, or a value breaks its rule.
        UnknownNameError: A key has no rule.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place} must be a table, not {_shown(table)}.")
    for key in table:
        if key not in rules:
            raise UnknownNameError("key", str(key), rules, where=str(place))
    return {
        key: rule.read(table[key], Place(place.file, place.table, key))
        for key, rule in rules.items()
        if key in table
    }


def table_schema(rules: Mapping[str, Rule]) -> dict[str, Any]:
    """JSON schema of a table that follows `rules`."""
    properties = {key: rule.schema() for key, rule in rules.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
