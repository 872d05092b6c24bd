"""Whether a search had converged: what the second half of its steps gained."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaudit.core.protocols import Halves
from fedaudit.core.registry import create
from fedaudit.core.scenario import Study
from fedaudit.core.trial import Trial
from fedaudit.reports.effort import effort, gain_of, unused
from fedaudit.reports.measurement import Effort
from fedaudit.reports.trials import Group, Trials

sys.path.insert(0, str(Path(__file__).parent))
from made_up import line, study, table, trial


def searched(target: int, objective: float, *, start: float = 1.0, **more: Any) -> Trial:
    made: Trial = trial(target)
    return replace(
        made,
        objective=objective,
        history=((10, start),),
        closed_form=False,
        iterations=100,
        restarts=3,
        **more,
    )


@pytest.mark.parametrize(
    ("half", "full", "gain"),
    [
        (0.4, 0.2, 0.5),  # half of what was left
        (0.2, 0.2, 0.0),
        (0.2, 0.3, 0.0),  # worse: it has nothing more to find there
        (0.99, 0.98, 0.5),  # under noise little can be explained, and half of that came late
        (0.9005, 0.9, 0.005),
        (0.02, 0.009, 0.0),  # nothing is left to explain
        (float("nan"), 0.2, None),
    ],
)
def test_gain_is_of_what_was_left_or_of_all_that_was_gained(
    half: float, full: float, gain: float | None
) -> None:
    found = gain_of(searched(0, full), searched(0, half))
    assert found == (None if gain is None else pytest.approx(gain, abs=1e-9))


def test_one_target_that_goes_on_falling_is_too_many() -> None:
    whole = Group(tuple(searched(t, 0.2) for t in range(8)))

    def found(*halves: float) -> Effort:
        return effort(whole, Group(tuple(searched(t, v) for t, v in enumerate(halves))))

    assert (found(0.2, 0.21).enough, found(0.2, 0.21).words) == (True, "converged (2 of 2)")
    assert (found(0.2, 0.4).enough, found(0.2, 0.4).words) == (False, "not converged (1 of 2)")
    assert (found(0.2, 0.4).steps, found().restarts) == (100, 3)


def test_what_is_not_reported_counts_as_not_enough() -> None:
    found = effort(Group((searched(0, 0.2),)), Group(()))
    assert (found.enough, found.words) == (False, "convergence not reported")
    exact = effort(Group((trial(0),)), Group(()))
    assert (exact.enough, exact.words) == (True, "exact, no search")


def test_what_attacks_could_not_use_is_told_once_and_of_the_audit_alone() -> None:
    some = [replace(trial(k), unused=("labels are not known",)) for k in range(2)]
    control = replace(searched(0, 0.2), unused=("dropout",))
    control = replace(control, cell=replace(control.cell, role="prior_only"))
    assert unused(Trials((*some, control))) == (
        "inverting gradients did without something: labels are not known.",
    )


def test_what_attacks_could_not_use_is_one_line_an_attack_and_cause() -> None:
    stayed = "stayed as sent, frozen or not used: left out"

    def under(defense: str, target: int, what: str) -> Trial:
        made: Trial = trial(target, defense=defense)
        return replace(made, unused=(what, "labels are not known"))

    assert unused(
        Trials(
            (
                replace(trial(0), unused=("labels are not known",)),
                under("top_k", 0, f"'body.2.bias' and 20 more {stayed}"),
                under("top_k", 1, f"'body.2.bias' and 23 more {stayed}"),
                under("sign", 0, f"'body.4.weight' {stayed}"),
            )
        )
    ) == (
        "inverting gradients did without something: labels are not known (under every defense).",
        "inverting gradients did without something: 1 to 24 parameters, such as 'body.2.bias', "
        f"{stayed} (under top-k sparsification, sign compression).",
    )
    one = Trials((under("top_k", 0, f"'head.bias' {stayed}"),))
    assert unused(one)[0] == f"inverting gradients did without something: 'head.bias' {stayed}."


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [
        ("inverting_gradients", {"steps": 10, "polish": 3, "seconds": 8.0}, [5, 2]),
        ("liu_2021", {"steps": 8}, [4]),
    ],
)
def test_halved_attacks_have_half_of_everything(
    name: str, settings: dict[str, Any], steps: list[int]
) -> None:
    attack: Any = create("attacks", name, settings)
    assert isinstance(attack, Halves)
    half: Any = attack.halved()
    assert [stage.steps for stage in half.stages] == steps
    assert half.seconds == (4.0 if "seconds" in settings else None)


def test_no_clean_word_rests_on_an_unfinished_search() -> None:
    asked = study(defenses=("none", "dpsgd"), targets=100)
    control = line(100, 100)
    clean = line(0, 100, defense="dpsgd")
    assert _word(asked, *control, *clean) == ("NO LEAK FOUND ABOVE LIMIT", "")
    unfinished = [replace(t, closed_form=False, objective=0.2, history=((1, 1.0),)) for t in clean]
    kind, reason = _word(asked, *control, *unfinished)
    assert (kind, reason) == ("INCONCLUSIVE", "unconverged")  # nobody tells whether it had ended
    for left, expected in ((0.2, "NO LEAK FOUND ABOVE LIMIT"), (0.4, "INCONCLUSIVE")):
        half = [
            replace(t, cell=replace(t.cell, role="half_steps"), objective=left)
            for t in unfinished
            if t.cell.role == "audit" and t.cell.target < 2
        ]
        assert _word(asked, *control, *unfinished, *half)[0] == expected


def _word(asked: Study, *made: Trial) -> tuple[str, str]:
    (row,) = (row for row in table(asked, made) if row.defense == "dpsgd")
    return row.verdict.kind, row.verdict.reason
