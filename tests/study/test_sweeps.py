"""Sweeps of a defense's setting, and how attacks adapt, in a study file."""

import pytest

from fedaudit.core.errors import (
    ConfigError,
    UnknownNameError,
)
from fedaudit.study.study_file import (
    study_from_mapping,
    study_to_mapping,
)


def test_a_sweep_is_a_defense_for_each_value() -> None:
    scenario = {
        "name": "s",
        "defenses": ["none", {"name": "top_k", "sweep": {"pruned": [0.5, 0.9]}}],
        "attacks": ["dlg", {"name": "dlg", "label": "blind", "adapt": "no"}],
    }
    study = study_from_mapping({"name": "x", "scenario": [scenario]})
    none, half, most = study.scenarios[0].defenses
    assert (half.label, half.settings) == ("top_k-0.5", {"pruned": 0.5})
    assert (most.label, most.settings) == ("top_k-0.9", {"pruned": 0.9})
    assert none.label == "none"
    assert [a.adapt for a in study.scenarios[0].attacks] == ["known", "no"]
    assert study_from_mapping(study_to_mapping(study)) == study


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        ({"name": "top_k", "sweep": {}}, "a table with one setting and its values"),
        ({"name": "top_k", "sweep": {"pruned": []}}, "a list of values that is not empty"),
        ({"name": "top_k", "pruned": 0.1, "sweep": {"pruned": [0.5]}}, "set beside its sweep"),
        ({"name": "top_k", "sweep": {"pruned": [0.5, 0.5]}}, "twice"),
    ],
)
def test_a_wrong_sweep_says_what_to_write(defense: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_from_mapping({"name": "x", "scenario": [{"name": "s", "defenses": [defense]}]})


def test_only_attacks_adapt_and_only_in_three_ways() -> None:
    wrong = {"name": "s", "attacks": [{"name": "dlg", "adapt": "maybe"}]}
    with pytest.raises(UnknownNameError, match="way to adapt 'maybe'"):
        study_from_mapping({"name": "x", "scenario": [wrong]})
