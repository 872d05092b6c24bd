"""Mistakes in a study file are named before anything runs."""

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedaudit.core.errors import (
    ConfigError,
    DataError,
    FedauditError,
)
from fedaudit.core.scenario import Study
from fedaudit.study.study_file import (
    load_study,
    study_from_mapping,
)

sys.path.insert(0, str(Path(__file__).parent))
from study_text import MINIMAL, load


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sise": 64}, "unknown key 'sise': did you mean 'size'?"),
        ({"scenarios": []}, "did you mean 'scenario'?"),
        ({"name": ""}, "a study needs a name"),
        ({"name": "a\x1b[31m"}, "control characters"),
        ({"name": "a\nb"}, "on one line"),
        ({"name": 3}, "name must be text"),
        (
            {"size": 8},
            "size must be a whole number of at least 16 and at most 1024, not 8. Write",
        ),
        ({"size": 64.0}, "whole number"),
        ({"size": True}, "not true"),
        ({"size": 4096}, "at most 1024"),
        ({"fmr": 0}, "fmr must be a number above 0 and at most 0.5, not 0"),
        ({"fmr": 0.6}, "at most 0.5"),
        ({"fmr": float("nan")}, "not nan"),
        ({"seeds": []}, "seeds must be a list that is not empty"),
        ({"seeds": 3}, "seeds must be a list"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        ({"seeds": [-1]}, "seeds[0] must be"),
        ({"utility": "yes"}, "utility must be true or false"),
        ({"data": 3}, "data must be a name or a table"),
        ({"data": {"path": "x"}}, "data must be a name or a table with a name"),
        ({"data": {"name": "orl", "day": object()}}, "data.day must be"),
        ({"federation": 3}, "study: federation must be a table"),
        ({"federation": {"clents": 3}}, "study: federation: unknown key 'clents'"),
        ({"federation": {"momentum": 1}}, "below 1"),
        ({"defaults": {"name": "x"}}, "study: defaults: unknown key 'name'"),
        ({"scenario": []}, "at least one scenario"),
        ({"scenario": {"name": "x"}}, "[[scenario]] with double brackets"),
        ({"scenario": [3]}, "scenario 1 must be a table"),
        ({"scenario": [{}]}, "scenario 1: a scenario needs a name"),
        ({"scenario": [{"name": "a"}, {"name": "A"}]}, "two scenarios are called 'A'"),
    ],
)
def test_mistakes_at_the_top(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FedauditError) as caught:
        study_from_mapping({**MINIMAL, **change})
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {"name": "fresh", "lr": "0.1", "atacks": [], "federation": {"clients": True}}
    with pytest.raises(ConfigError) as caught:
        study_from_mapping({**MINIMAL, "size": 8, "scenario": [wrong]}, file="my.toml")
    lines = str(caught.value).split("\n")
    assert [line.partition(" must be ")[0].partition(": did you")[0] for line in lines] == [
        "my.toml: size",
        "my.toml: scenario 'fresh': lr",
        "my.toml: scenario 'fresh'.federation: clients",
        "my.toml: scenario 'fresh': unknown key 'atacks'",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a/b"}, "as files carry it"),
        ({"name": "a--b"}, "(no --)"),
        ({"name": "x" * 49}, "at most 48"),
        ({"batch_size": 0}, "scenario 'fresh': batch_size must be a whole number of at least 1"),
        ({"round": 0}, "round must be"),
        ({"targets": "all"}, "targets must be"),
        ({"lr": 0}, "lr must be a number above 0, not 0"),
        ({"lr": float("inf")}, "not inf"),
        ({"attacks": []}, "attacks must be a list that is not empty"),
        ({"attacks": "gan"}, 'Write for instance attacks = ["gan_inversion"]'),
        ({"attacks": ["x", 3]}, "attacks[1] must be a name or a table"),
        ({"defenses": ["x", "x"]}, "defenses has 'x' twice. Remove one, or tell them apart"),
        ({"defenses": [{"name": "x", "label": "a b"}]}, "defenses[0].label must be a name"),
        ({"defenses": [{"name": "x", "label": 3}]}, "defenses[0].label must be a name"),
        ({"threat_model": "d"}, "unknown threat model 'd'"),
        ({"threat_model": 4}, 'threat_model must be one of "A", "B"'),
        ({"grant": ["label"]}, "unknown fact 'label': did you mean 'labels'?"),
        ({"grant": ["labels"], "deny": ["labels"]}, "labels stands in both"),
        ({"atacks": []}, "study: scenario 'fresh': unknown key 'atacks': did you mean 'attacks'?"),
    ],
)
def test_mistakes_in_a_scenario(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FedauditError) as caught:
        study_from_mapping({"name": "a", "scenario": [{"name": "fresh", **change}]})
    assert words in str(caught.value)


def test_faces_that_do_not_suffice(tmp_path: Path) -> None:
    for person in range(8):
        (home := tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for photo in range(2):
            Image.new("RGB", (20, 20), (person, photo, 0)).save(home / f"{photo}.png")

    def study(
        path: str, clients: int = 2, batch: int = 1, held_out: int = 2, targets: int = 2
    ) -> Study:
        return load(
            tmp_path,
            f"""
            name = "a"
            data = {{name = "folder", path = "{path}"}}
            [federation]
            clients = {clients}
            held_out = {held_out}
            photos = 1
            [[scenario]]
            name = "fresh"
            batch_size = {batch}
            targets = {targets}
            """,
        )

    assert study("faces")
    with pytest.raises(DataError, match=r"^study.toml: data: the face folder .* does not exist"):
        study("nowhere")
    with pytest.raises(DataError, match=r"^study.toml: federation: faces has 8 people"):
        study("faces", clients=7)
    with pytest.raises(DataError, match="which leaves 0 for 2 clients"):
        study("faces", held_out=10)
    with pytest.raises(DataError, match=r"^study.toml: scenario 'fresh': client 0 has 3 training"):
        study("faces", batch=4)
    with pytest.raises(DataError, match=r"'fresh': 500 targets, .* 6 different updates"):
        study("faces", targets=500)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no study file"):
        load_study(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_study(tmp_path)
    with pytest.raises(ConfigError, match=r"not valid TOML: .*line 1"):
        load(tmp_path, "name = x")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_study(tmp_path / "latin.toml")
