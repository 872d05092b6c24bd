import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from fedaudit.core import registry
from fedaudit.core.errors import (
    ConfigError,
    DataError,
    FedauditError,
    KnowledgeError,
    UnknownNameError,
    UsageError,
)
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, keys_of
from fedaudit.study.study_check import check_study
from fedaudit.study.study_file import (
    REPORT_ONLY,
    canonical,
    digest,
    load_study,
    schema,
    study_from_mapping,
    study_to_mapping,
)
from fedaudit.study.study_tables import DefaultsTable, FederationTable, ScenarioTable, StudyTable

MINIMAL: Mapping[str, Any] = {"name": "a", "scenario": [{"name": "fresh"}]}


@dataclass(frozen=True)
class Nosy:
    """An attack for these tests."""

    steps: int = 10
    needs: frozenset[Knowledge] = frozenset({Knowledge.AUXILIARY})

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


@dataclass(frozen=True)
class Shy:
    """A defense for these tests."""

    noise: float = 1.0


class OneStep:
    """A method for these tests."""

    def local(self, training: LocalTraining) -> LocalTraining:
        return replace(training, steps=1, momentum=0.0, optimizer="sgd")


def anything(**settings: Any) -> nn.Module:
    """A network for these tests."""
    return nn.Identity()


def faces(*, path: str = "", size: int = 64) -> None:
    """A data set for these tests."""


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, dict[str, Any]] = {
        "attacks": {"inverting_gradients": Nosy, "gan_inversion": Nosy},
        "defenses": {"none": Shy, "dpsgd": Shy},
        "methods": {"fedsgd": OneStep},
        "networks": {"face": anything, "broken": None},
        "data": {"orl": faces},
        "judges": {"sface": Shy, "dlib": Shy},
    }

    class Point:
        value = "somewhere:Plugin"

        def __init__(self, plugin: Any) -> None:
            self.plugin = plugin

        def load(self) -> Any:
            if self.plugin is None:
                raise ImportError("no torchvision")
            return self.plugin

    points = {kind: {n: Point(p) for n, p in of.items()} for kind, of in table.items()}
    monkeypatch.setattr(registry, "_table", points.__getitem__)


def load(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def test_rules_cover_every_field() -> None:
    study = set(Study.__dataclass_fields__) - {"scenarios"} | {"scenario", "defaults"}
    assert set(StudyTable.__annotations__) == study
    assert set(ScenarioTable.__annotations__) == set(keys_of(Scenario("a")))
    assert set(DefaultsTable.__annotations__) == set(ScenarioTable.__annotations__) - {"name"}
    assert set(FederationTable.__annotations__) == set(keys_of(Federation()))
    assert set(REPORT_ONLY) <= study


@pytest.mark.usefixtures("plugins")
def test_whole_file(tmp_path: Path) -> None:
    study = load(
        tmp_path,
        """
        name = "two"
        data = {name = "orl", path = "photos"}
        seeds = [0, 1]
        [federation]
        clients = 3
        [defaults]
        batch_size = 4
        attacks = ["gan_inversion"]
        [[scenario]]
        name = "fresh"
        defenses = ["none", {name = "dpsgd", label = "strong", noise = 4.0}, "dpsgd"]
        [[scenario]]
        name = "late"
        batch_size = 1
        round = 5
        """,
    )
    fresh, late = study.scenarios
    assert study.federation == Federation(clients=3)
    assert study.data.settings == {"path": str(tmp_path / "photos")}
    assert (fresh.batch_size, late.batch_size, late.round) == (4, 1, 5)
    assert [d.label for d in fresh.defenses] == ["none", "strong", "dpsgd"]
    assert fresh.defenses[1].settings == {"noise": 4.0}
    assert [a.label for a in late.attacks] == ["gan_inversion"]
    assert study_from_mapping(study_to_mapping(study)) == study


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


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ('attacks = ["gan_inverison"]', UnknownNameError, "did you mean 'gan_inversion'?"),
        ('attacks = [{name = "gan_inversion", step = 3}]', UnknownNameError, "'steps'?"),
        ('attacks = [{name = "gan_inversion", steps = 0}]', ConfigError, "steps must be at least"),
        ('threat_model = "C"', KnowledgeError, "attack 'inverting_gradients' needs"),
        ('defenses = [{name = "dpsgd", noize = 3}]', UnknownNameError, "option of defense 'dpsgd'"),
        ("local_steps = 4", ConfigError, "makes 1 local step, and local_steps asks for 4"),
        ("momentum = 0.5", ConfigError, "trains with momentum = 0.0, and the scenario asks"),
        ('optimizer = "adam"', ConfigError, "trains with optimizer = 'sgd', and the scenario"),
        ('optimizer = "adan"', UnknownNameError, "did you mean 'adam'?"),
        ('batch_norm = "off"', UnknownNameError, "unknown mode of batch norm 'off'"),
        (
            "batch_size = 4\nlocal_batch_size = 2",
            ConfigError,
            "1 local step(s) of 2 images leave 2 of the 4 images unused",
        ),
        ('attacks = [{name = "gan_inversion", steps = 1.5}]', ConfigError, "number, not 1.5."),
        ('attacks = [{name = "gan_inversion", steps = "3"}]', ConfigError, "steps must be a whole"),
        ('defenses = [{name = "dpsgd", noise = "3"}]', ConfigError, 'must be a number, not "3"'),
        ('network = "broken"', ConfigError, "registered but cannot be imported: no torchvision"),
        ('network = {name = "face", classes = 3}', ConfigError, "the data set decides"),
    ],
)
def test_mistakes_about_plugins(tmp_path: Path, line: str, error: type, words: str) -> None:
    with pytest.raises(FedauditError) as caught:
        load(tmp_path, f'name = "a"\n[[scenario]]\nname = "fresh"\n{line}')
    assert type(caught.value) is error
    assert str(caught.value).startswith("study.toml: scenario 'fresh': ")
    assert words in str(caught.value)


@pytest.mark.usefixtures("plugins")
def test_data_may_not_choose_its_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size is not for 'orl' to choose"):
        load(tmp_path, 'name="a"\ndata={name="orl", size=32}\n[[scenario]]\nname="fresh"')


@pytest.mark.parametrize(
    ("annotation", "fine", "wrong", "words"),
    [
        (tuple[int, ...], [1, 2], [1, 2.5], "a list, each a whole number, not [1, 2.5]"),
        (tuple[float, float], [1, 2], [1], "a list of 2: a number, a number, not [1]"),
        (Literal["a", "b"], "a", "c", 'one of "a", "b", not "c"'),
        (float | None, 3, True, "a number or left out, not true"),
        (bool, True, 1, "true or false, not 1"),
        (Path, "x", 3, "a path, not 3"),
    ],
)
def test_types_of_settings(
    monkeypatch: pytest.MonkeyPatch, annotation: Any, fine: object, wrong: object, words: str
) -> None:
    def plugin(*, option: Any) -> None:
        pass

    plugin.__annotations__["option"] = annotation
    monkeypatch.setattr(registry, "lookup", lambda kind, name: plugin)
    registry.check_settings("attacks", "x", {"option": fine})
    with pytest.raises(ConfigError) as caught:
        registry.check_settings("attacks", "x", {"option": wrong})
    assert str(caught.value) == f"attack 'x': option must be {words}."


def test_wrong_settings_of_our_own_plugins(tmp_path: Path) -> None:
    for line, words in {
        'network = {name = "face", head = "cosfaze"}': 'head must be one of "cosface", "arcface"',
        'network = {name = "face", dim = 1.5}': "dim must be a whole number, not 1.5",
        'attacks = [{name = "gan_inversion", stages = [1.5]}]': "stages must be a list, each",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(words)):
            load(tmp_path, f'name = "a"\n[[scenario]]\nname = "fresh"\n{line}')
    with pytest.raises(UnknownNameError, match="unknown data set 'Orl': did you mean 'orl'"):
        load(tmp_path, 'name = "a"\ndata = "Orl"\n[[scenario]]\nname = "fresh"')
    with pytest.raises(ConfigError, match=r"needs 'path'. Write {name = .folder., path"):
        load(tmp_path, 'name = "a"\ndata = "folder"\n[[scenario]]\nname = "fresh"')


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


def test_equal_plugins_are_built_once_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, str]] = []
    create = registry.create

    def counted(kind: str, name: str, settings: Mapping[str, Any]) -> Any:
        built.append((kind, name))
        return create(kind, name, settings)

    monkeypatch.setattr(registry, "create", counted)
    weak = Choice("dplc", {"epsilon": 0.1}, label="weak")
    defenses = (Choice("none"), Choice("dplc"), weak)
    scenarios = tuple(Scenario(f"s{k}", targets=2, defenses=defenses) for k in range(100))
    check_study(Study("many", scenarios))
    assert sorted(one for one in built if one[0] != "data") == [
        ("attacks", "inverting_gradients"),
        ("attacks", "subspace_matching"),
        ("defenses", "dplc"),
        ("defenses", "dplc"),
        ("defenses", "none"),
        ("methods", "fedsgd"),
    ]
