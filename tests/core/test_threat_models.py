from types import SimpleNamespace
from typing import Any

import pytest

from fedaudit.core.errors import ConfigError, KnowledgeError, UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.threat_models import EXPLANATIONS, THREAT_MODELS, check_knowledge, threat_model


def attack(*needs: Knowledge) -> Any:
    return SimpleNamespace(needs=frozenset(needs))


def test_ladder_of_carletti() -> None:
    grants = {name: model.grants for name, model in THREAT_MODELS.items()}
    assert list(grants) == list("ABCDEFGH")
    added: dict[str, set[Knowledge]] = {
        "BA": {Knowledge.BASIC},
        "CB": {Knowledge.TRAINING},
        "DC": {Knowledge.AUXILIARY},
        "ED": {Knowledge.STATISTICS},
        "FC": {Knowledge.MANIPULATION},
        "GD": {Knowledge.MANIPULATION},
        "HG": set(),
    }
    for pair, facts in added.items():
        more, less = pair[0], pair[1]
        assert grants[more] - grants[less] == facts
        assert grants[less] <= grants[more]
    assert all(Knowledge.DEFENSE in facts for facts in grants.values())
    assert not any(Knowledge.LABELS in facts for facts in grants.values())
    assert set(EXPLANATIONS) == set(Knowledge)


def test_grant_and_deny() -> None:
    model = threat_model("D", grant=["labels"], deny=["defense"])
    assert model.name == "D+labels-defense"
    assert Knowledge.LABELS in model.grants
    assert Knowledge.DEFENSE not in model.grants
    assert threat_model("C", grant=["training"]).name == "C"  # it had that


def test_wrong_words() -> None:
    with pytest.raises(UnknownNameError, match="unknown threat model 'Z': choose from A, B"):
        threat_model("Z")
    with pytest.raises(UnknownNameError, match="did you mean 'labels'"):
        threat_model("A", grant=["label"])
    with pytest.raises(ConfigError, match="'labels' stands in both"):
        threat_model("A", grant=["labels"], deny=["labels"])


def test_check_says_what_is_missing_and_who_grants_it() -> None:
    check_knowledge("fine", attack(Knowledge.MODEL), threat_model("A"))
    with pytest.raises(KnowledgeError) as caught:
        check_knowledge("gan", attack(Knowledge.AUXILIARY, Knowledge.BASIC), threat_model("A"))
    message = str(caught.value)
    assert "attack 'gan' needs what threat model A does not grant" in message
    assert "auxiliary (faces" in message
    assert "granted by D, E, G, H" in message
    assert 'threat_model = "D"' in message
    assert 'grant = ["auxiliary", "basic"]' in message
    with pytest.raises(KnowledgeError, match="No threat model from A to H grants that"):
        check_knowledge("oracle", attack(Knowledge.LABELS), threat_model("H"))
    with pytest.raises(KnowledgeError, match="Take model out of deny"):
        check_knowledge("gan", attack(Knowledge.MODEL), threat_model("D", deny=["model"]))
