"""Studies as TOML files: the grammar, reading, and the canonical form that a run folder keeps."""

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedaudit.core.errors import ConfigError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, keys_of, with_keys
from fedaudit.study.study_rules import (
    Flag,
    Inner,
    Many,
    Name,
    Number,
    OneOf,
    Place,
    Plugin,
    Rule,
    Text,
    Whole,
    read_table,
    table_schema,
)

REPORT_ONLY = ("description", "release_context", "reid_limit", "underpowered")
"""Keys that change what a report says of the cells, but no cell."""


def _threat_models() -> tuple[str, ...]:
    from fedaudit.core.threat_models import THREAT_MODELS  # noqa: PLC0415 - imports torch

    return tuple(THREAT_MODELS)


def _facts() -> tuple[str, ...]:
    from fedaudit.core.knowledge import Knowledge  # noqa: PLC0415 - imports torch

    return tuple(str(fact) for fact in Knowledge)


def _label(choice: Choice) -> str:
    return choice.label.casefold()  # some file systems do not tell Strong from strong


_POSITIVE = Number(0, math.inf, 0.1)
_FACTS = Many(OneOf("fact", _facts), '"labels"', may_be_empty=True)

_OPTIMIZER: dict[str, Rule] = {
    "momentum": Number(0, 1, 0.9, low_open=False, high_open=True),
    "optimizer": OneOf("optimizer", lambda: ("sgd", "adam")),
    "weight_decay": Number(0, math.inf, 0.0005, low_open=False),
    "proximal": Number(0, math.inf, 0.01, low_open=False),
    "batch_norm": OneOf("mode of batch norm", lambda: ("train", "eval")),
}

FEDERATION: dict[str, Rule] = {
    "clients": Whole(1, 5),
    "rounds": Whole(1, 30),
    "local_steps": Whole(1, 4),
    "batch_size": Whole(1, 16),
    "lr": _POSITIVE,
    **_OPTIMIZER,
    "held_out": Whole(2, 10),
    "photos": Whole(1, 5),
    "partition": OneOf("partition", lambda: ("people", "dirichlet", "lighting", "pose")),
    "alpha": Number(0, 1e6, 0.5),
    "identities": Whole(0, 3),
}

DEFAULTS: dict[str, Rule] = {
    "network": Plugin("face"),
    "method": Plugin("fedsgd"),
    "round": Whole(1, 1),
    "batch_size": Whole(1, 4),
    "local_steps": Whole(1, 1),
    "local_batch_size": Whole(0, 2),
    "lr": _POSITIVE,
    **_OPTIMIZER,
    "rounds_seen": Whole(1, 4),
    "targets": Whole(1, 16),
    "threat_model": OneOf("threat model", _threat_models),
    "grant": _FACTS,
    "deny": _FACTS,
    "defenses": Many(Plugin("dpsgd", sweeps=True), '"none", "dpsgd"', identity=_label),
    "attacks": Many(Plugin("gan_inversion", adapts=True), '"gan_inversion"', identity=_label),
    "controls": Flag(),
    "expose": Many(Text(lines=False), '"update"', may_be_empty=True),
    "federation": Inner(FEDERATION, dict),
}

SCENARIO: dict[str, Rule] = {"name": Name("fresh"), **DEFAULTS}

STUDY: dict[str, Rule] = {
    "name": Text(lines=False),
    "description": Text(),
    "data": Plugin("orl"),
    "size": Whole(16, 64, high=1024),
    "seeds": Many(Whole(0, 0), "0, 1, 2"),
    "utility": Flag(),
    "fmr": Number(0, 0.5, 0.001),
    "reid_limit": Number(0, 1, 0.05),
    "release_context": Text(),
    "underpowered": Flag(),
}

_PATHS = {"path", "root"}
_TABLES = ("federation", "defaults", "scenario")


def load_study(path: Path | str) -> Study:
    """Read a study file and check everything that can be checked before work begins.

    A relative path of the data set is taken from the folder of the study file.

    Raises:
        UsageError: Names the file, the key, and what to write; its subclasses say which kind.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no study file {str(path)!r}. `fedaudit schema study` says what one holds, "
            "and `fedaudit demo` runs one that is built in."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the study file {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8 text (byte {error.start}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}.") from error
    study = study_from_mapping(table, file=path.name)
    from fedaudit.study.study_check import check_study  # noqa: PLC0415 - imports torch

    study = _anchor(study, path.parent)
    check_study(study, file=path.name)
    return study


def study_from_mapping(table: Mapping[str, Any], *, file: str = "study") -> Study:
    """A study from the tables of its file; plugins are not looked up (`check_study` does that).

    Raises:
        ConfigError: A value or table is missing, of a wrong type or out of range.
        UnknownNameError: A key, threat model or fact does not exist.
    """
    top = {key: value for key, value in table.items() if key not in _TABLES}
    # Read with all keys known, so that a mistyped table is met by the closest match too.
    known: dict[str, Rule] = {**STUDY, **dict.fromkeys(_TABLES, Text())}
    values = read_table(top, known, Place(file))
    if not values.get("name"):
        raise ConfigError(f'{file}: a study needs a name. Write name = "…" at the top.')
    if "federation" in table:
        place = Place(file, "federation")
        values["federation"] = with_keys(
            Federation(), read_table(table["federation"], FEDERATION, place)
        )
    defaults = read_table(table.get("defaults", {}), DEFAULTS, Place(file, "defaults"))
    common = values.get("federation", Federation())
    scenarios = _scenarios(table.get("scenario"), defaults, file, common)
    return Study(scenarios=scenarios, **values)


def _scenarios(
    tables: object, defaults: Mapping[str, Any], file: str, common: Federation
) -> tuple[Scenario, ...]:
    if isinstance(tables, Mapping):
        raise ConfigError(
            f"{file}: [scenario] is one table, and there may be several scenarios. Write "
            "[[scenario]] with double brackets."
        )
    if not isinstance(tables, list | tuple) or not tables:
        raise ConfigError(
            f"{file}: a study needs at least one scenario, in double brackets. Write "
            '[[scenario]] and below it name = "fresh".'
        )
    scenarios: dict[str, Scenario] = {}
    for number, table in enumerate(tables, 1):
        named = table.get("name") if isinstance(table, Mapping) else None
        place = Place(
            file, f"scenario {named!r}" if isinstance(named, str) else f"scenario {number}"
        )
        values = {**defaults, **read_table(table, SCENARIO, place)}
        if "name" not in values:
            raise ConfigError(f'{place}: a scenario needs a name. Write name = "fresh".')
        if own := values.get("federation"):  # what it does not say is as everywhere in the study
            values["federation"] = with_keys(common, own)
        scenario = with_keys(Scenario(values.pop("name")), values)
        if both := set(scenario.grant) & set(scenario.deny):
            raise ConfigError(
                f"{place}: {', '.join(sorted(both))} stands in both grant and deny. Remove one."
            )
        if scenario.name.casefold() in scenarios:
            raise ConfigError(
                f"{place}: two scenarios are called {scenario.name!r}. Rename one; upper and lower "
                "case are the same here, because files carry the name."
            )
        scenarios[scenario.name.casefold()] = scenario
    return tuple(scenarios.values())


def _anchor(study: Study, folder: Path) -> Study:
    """Take the data set's folder, if it has one, from the folder of the study file."""
    settings = dict(study.data.settings)
    for key in _PATHS & settings.keys():
        if isinstance(path := settings[key], str):
            settings[key] = str((folder / Path(path).expanduser()).resolve())
    return dataclasses.replace(study, data=dataclasses.replace(study.data, settings=settings))


def study_to_mapping(study: Study) -> dict[str, Any]:
    """The tables of a study file that says everything, defaults included.

    `study_from_mapping` turns them back into an equal study.
    """
    table = {key: _plain(getattr(study, key)) for key in STUDY}
    table["federation"] = keys_of(study.federation)
    table["scenario"] = [
        {key: _plain(value) for key, value in keys_of(scenario).items() if value is not None}
        for scenario in study.scenarios
    ]
    return table


def _plain(value: object) -> Any:
    if isinstance(value, Choice):
        own = {"name": value.name, "label": value.label}
        adapt = {} if value.adapt == "known" else {"adapt": value.adapt}
        return {**own, **adapt, **value.settings}
    if isinstance(value, Federation):
        return keys_of(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def canonical(mapping: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal mappings give equal text."""
    return json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(study: Study) -> str:
    """SHA-256 of everything that decides a study's cells; `REPORT_ONLY` keys do not."""
    table = study_to_mapping(study)
    return hashlib.sha256(canonical(deciding(table)).encode()).hexdigest()


def deciding(table: Mapping[str, Any]) -> dict[str, Any]:
    """A study's tables without the keys that change no cell."""
    return {key: value for key, value in table.items() if key not in REPORT_ONLY}


def schema() -> dict[str, Any]:
    """JSON schema of study files, for editors and for checks in other tools."""
    top = table_schema(STUDY)
    scenarios = {"type": "array", "minItems": 1, "items": table_schema(SCENARIO)}
    top["properties"] |= {
        "federation": table_schema(FEDERATION),
        "defaults": table_schema(DEFAULTS),
        "scenario": scenarios,
    }
    scenarios["items"] = {**table_schema(SCENARIO), "required": ["name"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fedaudit study",
        **top,
        "required": ["name", "scenario"],
    }
