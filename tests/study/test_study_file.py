"""A study file as a whole, and the settings of the plugins that it names."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import nn

from fedaudit.core import registry
from fedaudit.core.errors import (
    ConfigError,
    FedauditError,
    KnowledgeError,
    UnknownNameError,
)
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.study.study_check import check_study
from fedaudit.study.study_file import (
    study_from_mapping,
    study_to_mapping,
)

sys.path.insert(0, str(Path(__file__).parent))
from study_text import load


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
