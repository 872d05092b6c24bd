"""Studies as TOML files: the grammar, reading, and the canonical form that a run folder keeps."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fedaudit.core.errors import ConfigError, FedauditError
from fedaudit.core.scenario import (
    COPY_JUDGE,
    PICTURES,
    Choice,
    Federation,
    Scenario,
    Study,
    keys_of,
    with_keys,
)
from fedaudit.study.named_code import code_in, look_in_current_folder
from fedaudit.study.study_errors import place_of_scenario, validate
from fedaudit.study.study_tables import StudyTable

MOST_CELLS = 100_000
"""What one study may ask for, controls included: a week of work at a few seconds a cell."""

REPORT_ONLY = (
    "description",
    "use",
    "release_context",
    "reid_limit",
    "ceiling_floor",
    "underpowered",
    "deployed",
    "encrypt_evidence",
)
"""Keys that change what a report says of the cells, or who may read pictures, but no number."""


_PATHS = {"path", "root"}


def load_study(
    path: Path | str,
    *,
    on_code: Callable[[tuple[str, ...]], None] = lambda names: None,
    on_photos: Callable[[Study], None] = lambda study: None,
) -> Study:
    """Read a study file and check everything that can be checked before work begins.

    Args:
        path: The file. A relative path of the data set is taken from its folder.
        on_code: Takes the code that the study names, if any, before it is imported; may refuse.
        on_photos: Takes the study before its photos are read; may prepare them.

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
    except RecursionError as error:
        raise ConfigError(f"{path.name} is nested too deeply.") from error
    except ValueError as error:  # of TOML, or of a number with thousands of digits
        raise ConfigError(f"{path.name} is not valid TOML: {str(error)[:200]}.") from error
    study = study_from_mapping(table, file=path.name)
    from fedaudit.study.study_check import check_study  # noqa: PLC0415 - imports torch

    study = _anchor(study, path.parent)
    if names := code_in(study):
        on_code(names)
        look_in_current_folder()
    on_photos(study)
    if study.data.name == "folder":
        with suppress(FedauditError):  # said below, and where
            study = _fit(study, table.get("federation", {}))
    check_study(study, file=path.name)
    return study


def _fit(study: Study, keys: Collection[str]) -> Study:
    """The study with a federation that a small folder can carry, but for what the file states."""
    from fedaudit.data.splits import fit_federation  # noqa: PLC0415 - imports torch
    from fedaudit.study.reach import faces_to_count  # noqa: PLC0415 - imports torch

    faces = faces_to_count(study, fetched=False)
    if faces is None:
        return study
    fit = partial(fit_federation, given=keys, people=faces.people)
    scenarios = tuple(
        s if s.federation is None else replace(s, federation=fit(s.federation))
        for s in study.scenarios
    )
    return replace(study, federation=fit(study.federation), scenarios=scenarios)


def study_from_mapping(table: Mapping[str, Any], *, file: str = "study") -> Study:
    """A study from the tables of its file; plugins are not looked up (`check_study` does that).

    Raises:
        ConfigError: A value or table is missing, of a wrong type or out of range.
        UnknownNameError: A key, threat model or fact does not exist.
    """
    values = validate(_adapter(), table, file)
    federation = with_keys(Federation(), values.pop("federation", {}))
    defaults = values.pop("defaults", {})
    scenarios: dict[str, Scenario] = {}
    for number, table_of_one in enumerate(values.pop("scenario")):
        place = place_of_scenario(file, table_of_one, number)
        keys = {**defaults, **table_of_one}
        if own := keys.get("federation"):  # what it does not say is as everywhere in the study
            keys["federation"] = with_keys(federation, own)
        scenario = with_keys(Scenario(keys.pop("name")), keys)
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
    if values.get("data", Choice("orl")).name in PICTURES:
        values = {"judges": (Choice(COPY_JUDGE),), "utility": False, **values}
    study = Study(scenarios=tuple(scenarios.values()), federation=federation, **values)
    _check_size(study, file)
    return study


def _check_size(study: Study, file: str) -> None:
    """Refuse a study of absurd size before its cells are listed one by one."""
    sizes = {
        s.name: s.targets * len(study.seeds) * len(s.defenses) * len(s.attacks) * (1 + s.controls)
        for s in study.scenarios
    }
    if (cells := sum(sizes.values())) > MOST_CELLS:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"{file}: the study asks for {_count(cells)} cells (targets × seeds × defenses × "
            f"attacks, and controls), and one study may hold {MOST_CELLS:,}. Most are of scenario "
            f"{largest!r}: lower its targets, or make several studies."
        )


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**15 else "more than 10^15"


@cache
def _adapter() -> TypeAdapter[StudyTable]:
    return TypeAdapter(StudyTable)


def _anchor(study: Study, folder: Path) -> Study:
    """Take paths of data and networks from the folder of the study file; networks with a hash."""
    scenarios = tuple(
        dataclasses.replace(one, network=_network_file(one.network, folder))
        for one in study.scenarios
    )
    study = dataclasses.replace(study, scenarios=scenarios)
    settings = dict(study.data.settings)
    for key in _PATHS & settings.keys():
        if isinstance(path := settings[key], str):
            settings[key] = str((folder / Path(path).expanduser()).resolve())
    return dataclasses.replace(study, data=dataclasses.replace(study.data, settings=settings))


def _network_file(network: Choice, folder: Path) -> Choice:
    """A network that is a file, by its whole path and its content; any other as it is."""
    from fedaudit.models.network_file import digest_of, is_file  # noqa: PLC0415 - imports torch

    if not is_file(network.name):
        return network
    path = str((folder / Path(network.name).expanduser()).resolve())
    settings = {"sha256": digest_of(path), **network.settings}
    return dataclasses.replace(network, name=path, settings=settings)


def study_to_mapping(study: Study) -> dict[str, Any]:
    """The tables of a study file that says everything, defaults included.

    `study_from_mapping` turns them back into an equal study.
    """
    keys = (field.name for field in dataclasses.fields(study))
    table = {key: _plain(getattr(study, key)) for key in keys if key != "scenarios"}
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
        return {key: _plain(own) for key, own in keys_of(value).items()}
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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_adapter().json_schema(),
        "title": "fedaudit study",
    }
