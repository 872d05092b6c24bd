"""The exposure map on a terminal."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.cli.conclusion import show_exposures

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample


def test_one_line_a_cell_and_the_reason_where_there_is_no_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = sample()
    show_exposures(results)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "SCENARIO",
        "SENT",
        "ATTACK",
        "RE-IDENTIFIED",
        "PRIOR",
        "ONLY",
        "RESULT",
    ]
    assert len(lines) == len(results.exposures)
    assert lines[0].split()[:6] == ["fresh-b1", "update", "inverting_gradients", "9", "of", "16"]
    assert lines[2].startswith("fresh-b1, dpsgd ε=8")
    reason = "not attacked: no attack in this study reads class_embeddings; template_inversion does"
    (untouched,) = [line for line in lines if "class_embeddings  " in line]
    assert untouched.endswith(reason)
    assert untouched.split()[1:4] == ["—", "—", "—"]
    assert not any(line.endswith("NOT TESTED") for line in lines)


def test_a_study_of_one_method_has_it_in_the_report_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = sample()
    one = tuple(replace(e, method="fedavg") for e in results.exposures)
    show_exposures(replace(results, exposures=one))
    assert capsys.readouterr().out == ""
