"""A study's tables, its schema and its digest agree."""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from fedaudit.core.errors import UsageError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, keys_of
from fedaudit.study.study_file import (
    REPORT_ONLY,
    canonical,
    digest,
    schema,
    study_from_mapping,
    study_to_mapping,
)
from fedaudit.study.study_tables import DefaultsTable, FederationTable, ScenarioTable, StudyTable

sys.path.insert(0, str(Path(__file__).parent))
from study_text import MINIMAL


def test_rules_cover_every_field() -> None:
    study = set(Study.__dataclass_fields__) - {"scenarios"} | {"scenario", "defaults"}
    assert set(StudyTable.__annotations__) == study
    assert set(ScenarioTable.__annotations__) == set(keys_of(Scenario("a")))
    assert set(DefaultsTable.__annotations__) == set(ScenarioTable.__annotations__) - {"name"}
    assert set(FederationTable.__annotations__) == set(keys_of(Federation()))
    assert set(REPORT_ONLY) <= study


def test_digest_is_of_what_decides_the_cells() -> None:
    study = study_from_mapping(MINIMAL)
    assert digest(study) == digest(study_from_mapping({**MINIMAL, "size": 64}))
    assert digest(study) == digest(study_from_mapping({**MINIMAL, "description": "other"}))
    assert digest(study) != digest(study_from_mapping({**MINIMAL, "size": 32}))
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


def test_label_is_the_name_if_not_given() -> None:
    assert Choice("none").label == "none"
    assert Choice("my.package:Attack").label == "Attack"
    assert Choice("none", label="x").label == "x"


VALIDATOR = jsonschema.Draft202012Validator(schema())
SIMPLE_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+]{0,20}", fullmatch=True)
PLUGINS = st.one_of(
    SIMPLE_NAMES,
    st.fixed_dictionaries(
        {"name": SIMPLE_NAMES, "label": SIMPLE_NAMES},
        optional={"steps": st.integers(), "lr": st.floats(allow_nan=False, allow_infinity=False)},
    ),
)
SCENARIOS = st.fixed_dictionaries(
    {"name": SIMPLE_NAMES},
    optional={
        "batch_size": st.integers(-2, 20),
        "lr": st.floats(),
        "threat_model": st.sampled_from("ABCDEFGHZ"),
        "grant": st.lists(st.sampled_from(["labels", "statistics", "nothing"]), max_size=2),
        "defenses": st.lists(PLUGINS, max_size=2),
        "controls": st.booleans(),
    },
)
STUDIES = st.fixed_dictionaries(
    {"name": st.text(max_size=5), "scenario": st.lists(SCENARIOS, max_size=2)},
    optional={
        "size": st.integers(8, 80),
        "fmr": st.floats(-0.1, 0.7),
        "seeds": st.lists(st.integers(-1, 4), max_size=3),
        "data": PLUGINS,
        "other": st.none(),
    },
)


@given(STUDIES)
def test_whatever_is_read_fits_the_schema_and_comes_back(table: dict[str, Any]) -> None:
    try:
        study = study_from_mapping(table)
    except UsageError:
        return
    VALIDATOR.validate(table)
    written = json.loads(canonical(study_to_mapping(study)))
    VALIDATOR.validate(written)
    assert study_from_mapping(written) == study
