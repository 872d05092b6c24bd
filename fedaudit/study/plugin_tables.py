"""How a study file names a plugin: by its name, or by a table with its settings among the keys.

Validators raise a `ValueError` without words where the field says what must be there
(`study_errors`), and with words, in which `{key}` is the key, where it does not.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fedaudit.core.scenario import SAFE_NAME, Adapt, Choice

SAFE = "a name of letters, digits and . _ + - (no --), at most 48, as files carry it"
"""What a name must be that becomes part of file names: "--" separates those parts."""


class LabelError(ValueError):
    """A label, given or made of the plugin's name, that cannot be part of a file name."""


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _plain(value: Any) -> Any:
    if not _is_plain(value):
        raise ValueError
    return value


_Plain = Annotated[
    Any,
    AfterValidator(_plain),
    Field(description="finite numbers, text, lists or tables", examples=[1]),
]
_Values = Annotated[
    list[_Plain], Field(min_length=1, description="a list of values that is not empty")
]
_Sweep = Annotated[
    dict[str, _Values],
    Field(
        min_length=1,
        max_length=1,
        description="a table with one setting and its values",
        examples=[{"noise_multiplier": [0.1, 1.0]}],
    ),
]


class _Plugin(BaseModel):
    """A plugin; `label` tells two settings of one plugin apart."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, _Plain]

    name: str
    label: Annotated[str, Field(description=SAFE, examples=["strong"])] = ""

    def choice(self, adapt: Adapt = "known") -> Choice:
        return _with_label(Choice(self.name, self.__pydantic_extra__, self.label, adapt))


class _Attack(_Plugin):
    """An attack; `adapt` is what it makes of the defense in use."""

    adapt: Annotated[Adapt, Field(title="way to adapt")] = "known"

    def adapting(self) -> Choice:
        return self.choice(self.adapt)


class _Defense(_Plugin):
    """A defense, or one for each value of the setting that it sweeps; labels carry the value."""

    sweep: _Sweep = {}

    def choices(self) -> tuple[Choice, ...]:
        if not self.sweep:
            return (self.choice(),)
        ((setting, values),) = self.sweep.items()
        if setting in self.__pydantic_extra__:
            raise ValueError(f"{setting} is set beside its sweep. Remove one.")
        label, rest = self.label or self.name, self.__pydantic_extra__
        return tuple(
            _with_label(Choice(self.name, {**rest, setting: v}, f"{label}-{v}")) for v in values
        )


def _with_label(choice: Choice) -> Choice:
    if not re.fullmatch(SAFE_NAME, choice.label):
        raise LabelError(choice.label)
    return choice


def _told_apart(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    labels: dict[str, Choice] = {}
    for choice in choices:
        label = choice.label.casefold()  # some file systems do not tell Strong from strong
        if label in labels:
            raise ValueError(
                f"{{key}} has {label!r} twice. Remove one, or tell them apart: "
                '{name = "…", label = "strong", …}.'
            )
        labels[label] = choice
    return tuple(labels.values())


def _as_table(value: Any) -> Any:
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise ValueError
    return table


def _by_name(of: type[_Plugin]) -> Any:
    return BeforeValidator(_as_table, json_schema_input_type=str | of)


def example(name: str) -> Any:
    """What an error says to write."""
    return Field(
        description="a name or a table with a name", examples=[name, {"name": name, "…": "…"}]
    )


def _list(example: list[str]) -> Any:
    return Field(min_length=1, description="a list that is not empty", examples=[example])


OnePlugin = Annotated[_Plugin, _by_name(_Plugin), AfterValidator(_Plugin.choice)]
_OneAttack = Annotated[_Attack, _by_name(_Attack), AfterValidator(_Attack.adapting)]
_OneDefense = Annotated[_Defense, _by_name(_Defense), AfterValidator(_Defense.choices)]

Attacks = Annotated[
    list[Annotated[_OneAttack, example("gan_inversion")]],
    AfterValidator(_told_apart),
    _list(["gan_inversion"]),
]
Judges = Annotated[
    list[Annotated[OnePlugin, example("sface")]],
    AfterValidator(_told_apart),
    _list(["sface", "dlib"]),
]
Defenses = Annotated[
    list[Annotated[_OneDefense, example("dpsgd")]],
    AfterValidator(lambda several: _told_apart(one for choices in several for one in choices)),
    _list(["none", "dpsgd"]),
]
