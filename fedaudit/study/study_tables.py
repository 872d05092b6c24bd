"""The tables of a study file: which keys there are, and what each may hold.

What a key means, and its default, stands with the field of that name in `core.scenario`. A field's
`description` says in an error what the value must be, where its type and range do not say it all;
its `examples` say what to write, and its `title` what a word is one of.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from fedaudit.core.knowledge import Knowledge
from fedaudit.core.scenario import SAFE_NAME, Partition, Use
from fedaudit.core.threat_models import THREAT_MODELS
from fedaudit.core.training import Augmentation, BatchNormMode, Optimizer
from fedaudit.study.plugin_tables import SAFE, Attacks, Defenses, Judges, OnePlugin, example

_STRICT = ConfigDict(strict=True, extra="forbid")


def _whole(low: int, example: int, high: int = 2**31 - 1) -> Any:
    return Field(ge=low, le=high, examples=[example])


def _number(example: float, **bounds: Any) -> Any:
    return Field(allow_inf_nan=False, examples=[example], **bounds)


def _text(of: str, controls: str) -> Any:
    """Control characters would reach a terminal, so they are refused."""
    must = f"{of} without control characters"
    return Field(pattern=f"^[^{controls}]*$", description=must, examples=["…"])


def _list(example: list[str]) -> Any:
    return Field(description="a list", examples=[example])


_SEEDS = Field(min_length=1, description="a list that is not empty", examples=[[0, 1, 2]])


def _among(words: list[str]) -> Callable[[str], str]:
    def check(word: str) -> str:
        if word not in words:
            raise ValueError
        return word

    return check


_FACTS, _MODELS = [str(fact) for fact in Knowledge], list(THREAT_MODELS)
_Fact = Annotated[
    str, AfterValidator(_among(_FACTS)), Field(title="fact", json_schema_extra={"enum": _FACTS})
]
_ThreatModel = Annotated[
    str,
    AfterValidator(_among(_MODELS)),
    Field(title="threat model", json_schema_extra={"enum": _MODELS}),
]


def _distinct(items: list[Any]) -> tuple[Any, ...]:
    for number, item in enumerate(items):
        if item in items[:number]:
            raise ValueError(f"{{key}} has {item!r} twice. Remove one.")
    return tuple(items)


_Facts = Annotated[
    list[_Fact],
    AfterValidator(_distinct),
    _list(["labels"]),
]
_Line = Annotated[str, _text("text on one line", r"\x00-\x1f\x7f-\x9f")]
_Text = Annotated[str, _text("text", r"\x00-\x08\x0b-\x1f\x7f-\x9f")]
_Flag = Annotated[bool, Field(examples=[True])]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Labels = Annotated[
    list[_Line],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    AfterValidator(_distinct),
    Field(description="the label of a defense, or a list of them", examples=["dpsgd"]),
]


_Keys = Annotated[
    list[_Line],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    AfterValidator(_distinct),
    Field(description="a public key (age1…, ssh-ed25519 …), or a list of them", examples=["age1…"]),
]


@with_config(_STRICT)
class _Training(TypedDict, total=False):
    """Keys of local training, wherever they stand."""

    local_steps: Annotated[int, _whole(1, 4)]
    lr: Annotated[float, _number(0.1, gt=0)]
    momentum: Annotated[float, _number(0.9, ge=0, lt=1)]
    optimizer: Optimizer
    weight_decay: Annotated[float, _number(0.0005, ge=0)]
    proximal: Annotated[float, _number(0.01, ge=0)]
    batch_norm: Annotated[BatchNormMode, Field(title="mode of batch norm")]
    augmentation: Annotated[list[Augmentation], AfterValidator(_distinct), _list(["flip", "crop"])]


class FederationTable(_Training, total=False):
    """`[federation]`: `core.scenario.Federation`."""

    clients: Annotated[int, _whole(1, 5)]
    rounds: Annotated[int, _whole(1, 30)]
    batch_size: Annotated[int, _whole(1, 16)]
    held_out: Annotated[int, _whole(0, 10)]
    photos: Annotated[int, _whole(1, 5)]
    partition: Partition
    alpha: Annotated[float, _number(0.5, gt=0, le=1e6)]
    identities: Annotated[int, _whole(0, 3)]
    pretrain_steps: Annotated[int, _whole(0, 300)]
    public: Annotated[_Line, Field(examples=["openpeople"])]


class DefaultsTable(_Training, total=False):
    """`[defaults]`: what all scenarios hold that do not say otherwise."""

    network: Annotated[OnePlugin, example("face")]
    method: Annotated[OnePlugin, example("fedsgd")]
    round: Annotated[int, _whole(1, 1)]
    batch_size: Annotated[int, _whole(1, 4)]
    local_batch_size: Annotated[int, _whole(0, 2)]
    rounds_seen: Annotated[int, _whole(1, 4)]
    targets: Annotated[int, _whole(1, 16)]
    threat_model: _ThreatModel
    grant: _Facts
    deny: _Facts
    defenses: Defenses
    attacks: Attacks
    controls: _Flag
    expose: Annotated[list[_Line], AfterValidator(_distinct), _list(["update"])]
    federation: FederationTable


def _safe(name: str) -> str:
    if not re.fullmatch(SAFE_NAME, name):
        raise ValueError
    return name


_SafeName = Annotated[
    str,
    AfterValidator(_safe),
    Field(description=SAFE, examples=["fresh"], json_schema_extra={"pattern": f"^{SAFE_NAME}$"}),
]


class ScenarioTable(DefaultsTable, total=False):
    """One `[[scenario]]`: `core.scenario.Scenario`."""

    name: Required[_SafeName]


@with_config(_STRICT)
class StudyTable(TypedDict, total=False):
    """A study file: `core.scenario.Study`."""

    name: Required[Annotated[_Line, Field(min_length=1)]]
    description: _Text
    data: Annotated[OnePlugin, example("orl")]
    size: Annotated[int, _whole(16, 64, high=1024)]
    seeds: Annotated[list[Annotated[int, _whole(0, 0)]], AfterValidator(_distinct), _SEEDS]
    federation: FederationTable
    defaults: DefaultsTable
    scenario: Required[Annotated[list[ScenarioTable], Field(min_length=1)]]
    utility: _Flag
    utility_seeds: Annotated[int, _whole(1, 3, high=100)]
    inference: _Flag
    canaries: Annotated[int, _whole(0, 1000, high=1_000_000)]
    sequential: _Flag
    judges: Judges
    fmr: Annotated[float, _number(0.001, gt=0, le=0.5)]
    reid_limit: Annotated[float, _number(0.05, gt=0, le=1)]
    ceiling_floor: Annotated[float, _number(0.5, ge=0, le=1)]
    use: Annotated[Use, example("commercial")]
    release_context: _Text
    underpowered: _Flag
    deployed: _Labels
    encrypt_evidence: _Keys
