"""Where an ε stands beside an accuracy, it says which of the two trainings it is of."""

import sys
from dataclasses import replace
from pathlib import Path

from fedaudit.reports.cells import Scene, epsilon
from fedaudit.reports.comparison import DefenseLine
from fedaudit.reports.guarantees import guarantee
from fedaudit.reports.league import league, record
from fedaudit.reports.recommending import recommend

sys.path.insert(0, str(Path(__file__).parent))
from made_up import claim
from sample import sample

UPDATE = "ε = 4.73, δ = 1e-05, per image, 1 round, covers update"


def private(epsilon: float = 13.7, **more: object) -> DefenseLine:
    """A line whose audited update has ε = 4.73, and whose training of 12 rounds has `epsilon`."""
    line = next(x for x in sample().defenses if x.defense == "dplc")
    assert line.utility
    whole = replace(claim(epsilon), rounds=12, **more)  # type: ignore[arg-type]
    worth = replace(line.utility, training_claims=(whole,))
    return replace(line, claims=(claim(4.73),), utility=worth)


def test_the_training_of_the_accuracy_has_its_epsilon_beside_that_of_the_update() -> None:
    assert guarantee(private()) == f"{UPDATE}; ε = 13.7 over the 12 rounds of this accuracy"
    other = guarantee(private(delta=2e-4))
    assert other == f"{UPDATE}; ε = 13.7 (δ = 0.0002) over the 12 rounds of this accuracy"
    broken = guarantee(private(covers=()))
    assert broken == f"{UPDATE}; broken over the 12 rounds of this accuracy"
    endless = replace(private(), claims=(replace(claim(4.73), rounds=12),))
    assert "of this accuracy" not in guarantee(endless)  # one ε of as many rounds is the same one
    assert guarantee(replace(private(), utility=None)) == UPDATE


def test_every_place_with_an_accuracy_beside_says_so() -> None:
    line, words = private(), "; ε = 13.7 over the 12 rounds of this accuracy"
    results = replace(sample(), defenses=(line,))
    assert league(results).lines[0].guarantee.endswith(words)
    assert epsilon(line, Scene()).brief.endswith(words)
    assert record(line)["guarantee_of_training"].startswith("ε = 13.7, δ = 1e-05, per image, 12 r")
    ((found),) = recommend(results, max_reid=1, min_accuracy=0.5)
    assert found.candidates[0].why.endswith(words)


def test_no_defense_states_nothing_and_is_no_heuristic() -> None:
    none = next(x for x in sample().defenses if x.name == "none")
    assert guarantee(none) == "none stated"
    assert guarantee(replace(none, name="top_k")) == "none (heuristic)"
    ((found),) = recommend(replace(sample(), defenses=(none,)), max_reid=1, min_accuracy=0.5)
    assert found.candidates[0].why.endswith("privacy claim: none stated")
