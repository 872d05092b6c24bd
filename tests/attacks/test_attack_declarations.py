"""What every registered attack declares of itself."""

import inspect
import re
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedaudit.core.errors import KnowledgeError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.protocols import AttackCategory, ManipulatingAttack, category_of
from fedaudit.core.registry import create, describe, lookup, names
from fedaudit.core.threat_models import check_knowledge, threat_model

sys.path.insert(0, str(Path(__file__).parent))
from contract_rows import MALICIOUS, PRESETS, TEMPLATES, TINY


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n in PRESETS else n for n in TINY],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def attack(name: str) -> Any:
    return create("attacks", name, TINY[name])


def test_every_registered_attack_has_a_row() -> None:
    assert set(TINY) == set(names("attacks"))


def test_is_a_frozen_object_with_documented_settings(name: str, attack: Any) -> None:
    """A class, or a function that presets one."""
    kind: Any = lookup("attacks", name)
    assert is_dataclass(attack)
    assert not isinstance(attack, type)
    parameters = inspect.signature(kind).parameters
    documentation = kind.__doc__ or ""
    assert describe("attacks", name)
    assert re.search(r"et al\.[^.]*\d{4}", documentation), "name the paper"
    for setting, parameter in parameters.items():
        assert re.search(rf"^ +(\w+, )*{setting}(, \w+)*: ", documentation, re.MULTILINE)
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
    with pytest.raises(AttributeError):
        attack.anything = 1  # type: ignore[attr-defined]


def test_declares_what_it_needs_and_reads(name: str, attack: Any) -> None:
    assert isinstance(attack.needs, frozenset)
    assert attack.needs <= set(Knowledge)
    assert Knowledge.MODEL in attack.needs
    assert Knowledge.LABELS not in attack.needs  # threat models A to H grant them nowhere
    assert attack.reads
    assert all(is_dataclass(kind) for kind in attack.reads)
    with pytest.raises(KnowledgeError, match=name):
        check_knowledge(name, attack, threat_model("A"))
    assert (Knowledge.MANIPULATION in attack.needs) == (name in MALICIOUS)
    assert isinstance(attack, ManipulatingAttack) == (name in MALICIOUS)
    check_knowledge(name, attack, threat_model("G" if name in MALICIOUS else "D"))


def test_declares_its_category(name: str, attack: Any) -> None:
    category = category_of(attack)
    assert category is not AttackCategory.OTHER
    assert (category is AttackCategory.MALICIOUS_SERVER) == (name in MALICIOUS)
    assert (category is AttackCategory.TEMPLATE) == (name in TEMPLATES)


def test_an_attack_that_declares_no_category_counts_as_other() -> None:
    assert category_of(object()) is AttackCategory.OTHER
    assert category_of(SimpleNamespace(category="made up")) is AttackCategory.OTHER
    assert category_of(SimpleNamespace(category="learned inversion")) is AttackCategory.LEARNED
