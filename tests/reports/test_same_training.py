"""No accuracy and no cost of a defense under which the federation trains as it does without it."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from fedaudit.core.measures import Utility
from fedaudit.core.registry import lookup, names
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.source import COMPLETE
from fedaudit.defenses.settings import pass_on
from fedaudit.reports import run_contents
from fedaudit.reports.build import summarize
from fedaudit.reports.columns import markdown, scene
from fedaudit.reports.comparison import DefenseLine
from fedaudit.reports.html import render
from fedaudit.reports.league import league, record
from fedaudit.reports.ledger import ledger_of
from fedaudit.reports.recommending import recommend
from fedaudit.reports.results import Results
from fedaudit.reports.same_training import OF_TRAINING
from fedaudit.reports.worth_cells import accuracy, accuracy_loss, overhead
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import utility_jobs
from fedaudit.study.manifest import new
from fedaudit.study.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parent))
from made_up import gallery, line, study, trials
from sample_rows import worth

WHY = "not measured: the federation trains so already"
CHAIN = {"of": ["more_steps", {"name": "larger_batch", "images": 3}]}
PART = {"of": ["more_steps", "qsgd"]}
WEIGHTS = {
    "none": 1.0,
    "larger_batch": 1.0,
    "both": 1.0,
    "more_steps": 2.0,  # more than the federation trains with
    "qsgd": 1.0,  # acts on the update, however little of that is left in the network
    "some": 1.0,
}
DEFENSES = (
    *(Choice(name) for name in ("none", "larger_batch", "more_steps", "qsgd")),
    Choice("chain", CHAIN, "both"),
    Choice("chain", PART, "some"),
)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A study of which every defense was trained, and ended in `WEIGHTS`."""
    monkeypatch.setattr(run_contents, "_gallery", lambda *_: gallery())
    made = study()
    scenario = replace(made.scenarios[0], defenses=DEFENSES)
    asked = replace(made, scenarios=(scenario,), utility_seeds=2)
    folder, done = RunFolder(tmp_path), _train(asked, scenario, RunFolder(tmp_path))
    attacked = trials(*(line(2, defense=d.label) for d in DEFENSES))
    return summarize(
        folder, new(asked, "by hand", "redacted"), Inventory(done, (), {}, {}), attacked
    )


def _train(asked: Study, scenario: Scenario, folder: RunFolder) -> tuple[str, ...]:
    """Save two trainings of each defense, with the same utility; their keys."""
    one: Utility = replace(
        (two := worth(0.9)),
        accuracies=two.accuracies[:1],
        untrained_accuracies=two.untrained_accuracies[:1],
        step_seconds=1.0,
        plain_step_seconds=1.0,
        bytes_sent=9,
        plain_bytes_sent=9,
    )
    keys = []
    for defense in scenario.defenses:
        for job in utility_jobs(asked, scenario, defense):
            weights = torch.tensor([WEIGHTS[defense.label], float(job.seed)])
            folder.save_model(job.key, {"w": weights}, {"utility": asdict(one)})
            keys.append(job.key)
    return tuple(keys)


def _lines(results: Results) -> Mapping[str, DefenseLine]:
    return {x.defense: x for x in results.defenses}


def test_equal_weights_say_that_such_a_defense_changed_nothing_of_the_training(
    results: Results,
) -> None:
    lines = _lines(results)
    assert {name for name, x in lines.items() if x.same_training} == {"larger_batch", "both"}
    for name, x in lines.items():
        assert (x.utility is None) is (name in {"larger_batch", "both"})
        assert (x.accuracy_lost is None) is (x.utility is None)


def test_tables_say_that_nothing_was_measured_and_why(results: Results) -> None:
    x, here = _lines(results)["larger_batch"], scene(results, "fresh")
    for cell in (accuracy(x, here), accuracy_loss(x, here), overhead(x, here)):
        assert (cell.value, cell.notes) == ("—", (WHY,))
    (row,) = (r for r in markdown(results).splitlines() if "| larger_batch |" in r)
    assert row.count("— (the federation trains so)") == 3
    assert record(x)["accuracy_not_measured"] == WHY
    assert record(_lines(results)["qsgd"])["accuracy_not_measured"] is None
    (shown,) = (one for one in league(results).lines if one.source is x)
    assert (shown.lost, shown.price, shown.why) == (None, "—", f"accuracy and cost {WHY}")
    page = render(results, None, "redacted")
    assert f'<td data-value=""><b>—</b><small>{shown.why}</small></td>' in page  # sorted last


def test_what_was_not_measured_satisfies_no_limit_and_has_no_place(results: Results) -> None:
    ((found),) = recommend(results, max_reid=1, min_accuracy=0.5)
    assert {c.line.defense for c in found.satisfied} == {"none", "more_steps", "qsgd", "some"}
    assert {c.line.defense for c in found.unranked} == {"larger_batch", "both"}
    for candidate in found.unranked:
        assert (candidate.standing, candidate.cost) == ("not measured", None)
        assert WHY in candidate.why
        assert "counts against it" in candidate.why


def test_our_defenses_that_act_by_local_training_alone_are_known() -> None:
    kinds = {name: lookup("defenses", name) for name in names("defenses")}
    passing = {n for n, kind in kinds.items() if vars(kind).get("__call__") is pass_on}
    more = ("network", "copies", "at", "aggregate", "notes", "encoded_bytes", "threshold")
    alone = {
        n
        for n in passing
        if hasattr(kinds[n], "local") and not any(hasattr(kinds[n], ability) for ability in more)
    }
    assert alone == OF_TRAINING


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fedavg", "each with 4 local steps of batch 16 at lr 0.05, momentum 0.9, before"),
        ("fedsgd", "each with 1 local step of batch 16 at lr 0.05, before"),
        ("fedprox", "4 local steps of batch 16 at lr 0.05, momentum 0.9, proximal 0.01, before"),
    ],
)
def test_the_ledger_says_of_which_training_the_accuracy_is(method: str, words: str) -> None:
    made = study()
    scenario = replace(made.scenarios[0], method=Choice(method))
    training = replace(Federation().training, lr=0.05)
    asked = replace(made, federation=Federation(clients=3, rounds=12, training=training))
    found = ledger_of(scenario, asked, COMPLETE, [worth(0.9)])
    assert found.federation.startswith("12 rounds of 3 clients, ")
    assert words in found.federation
    assert found.federation.endswith("; 2 trainings each")
    assert ledger_of(scenario, asked, COMPLETE).federation == ""  # no accuracy, no training


def test_the_league_says_of_which_training_each_column_is(results: Results) -> None:
    whole = (
        "Leaks are of the audited update: 1 local step, batch 1, lr 0.1. Accuracy and cost are of "
        "the federation's training: 30 rounds of 5 clients, each with 1 local step of batch 16 at "
        "lr 0.1, before what a defense changes of it; 2 trainings each."
    )
    assert league(results).trainings == (whole,)
    text = render(results, None, "redacted").replace("&#39;", "'")
    assert whole in text
    assert text.count("2 trainings each") == 2  # under the table, and in the ledger
    two = tuple(replace(results.ledger[0], scenario=name) for name in ("one", "two"))
    alike = league(replace(results, ledger=two)).trainings
    assert len(alike) == 1
    assert alike[0].startswith("Leaks in one, two are of ")
