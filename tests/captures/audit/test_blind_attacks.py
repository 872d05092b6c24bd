"""Attacks that rebuild nothing: an audit stops before them, or is invalid."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from fedaudit.cli.conclusion import conclude
from fedaudit.cli.options import RunOptions
from fedaudit.cli.run_study import run_study
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice
from fedaudit.core.shared import Update
from fedaudit.reports.build import results_of
from fedaudit.reports.effort import effort
from fedaudit.reports.interim_analysis import reason_to_stop
from fedaudit.reports.positive_control import lacks_power, succeeds
from fedaudit.reports.trials import Group, Trials
from fedaudit.study.executors.choice import Place
from fedaudit.study.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import ATTACKS, control_of, only, requested, run


@dataclass(frozen=True)
class Blind:
    """An attack that gives back a gray image, whatever it sees."""

    needs: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.MODEL})
    reads: ClassVar[frozenset[type[Any]]] = frozenset({Update})

    def __call__(self, seen: Observation, *, generator: torch.Generator) -> Reconstruction:
        assert seen.image_shape is not None
        gray = 0.5 + 0.01 * torch.randn(1, *seen.image_shape, generator=generator)
        return Reconstruction(gray, torch.tensor([-1]))


@pytest.mark.parametrize("also", [[], ATTACKS])
def test_nothing_is_attacked_where_no_attack_rebuilds_a_known_face(
    tmp_path: Path, capture: Path, also: list[Choice], capsys: pytest.CaptureFixture[str]
) -> None:
    blind = Choice(f"{__name__}:Blind")
    study = requested(capture, clients=["client-0"], attacks=[blind, *also])
    options = RunOptions(place=Place("in-process"), quiet=True)
    code = run_study(study, tmp_path / "run", options, reason_to_stop)
    cells = [cell.stem for cell in (tmp_path / "run" / "cells").glob("*.json")]
    assert sum("--positive--" in cell for cell in cells) == 3 * (1 + len(also))
    assert any("--audit--" in cell for cell in cells) is bool(also)
    said = "stopped: no attack rebuilds a known face" in capsys.readouterr().err
    assert said is not bool(also)
    assert code == 3
    sentence = results_of(tmp_path / "run").headline.sentence
    assert ("not tested: no attack rebuilds a known face" in sentence) is not bool(also)
    assert "gallery photo" not in sentence
    if not also:  # whoever wants it all the same goes on in that folder
        run_study(study, tmp_path / "run", options)
        assert list((tmp_path / "run" / "cells").glob("*--audit--*.json"))


@pytest.mark.slow
def test_an_attack_that_rebuilds_nothing_makes_the_run_invalid(
    tmp_path: Path, capture: Path, truth: dict[str, Path], gallery: Path
) -> None:
    blind = Choice(f"{__name__}:Blind")
    some = {name: truth[name] for name in ("client-0", "client-1")}
    study = requested(capture, truth=some, gallery=gallery, attacks=[blind])
    results = run(study, tmp_path / "run")
    assert control_of(results, "positive").passed is False
    assert only(results).verdict.kind == results.headline.kind == "INVALID"
    code = conclude(tmp_path / "run", "redacted", fail_on=None, jobs=1)
    assert code == 3
    # Beside one that works, the run counts, and the other's clean row says what it is worth.
    both = requested(capture, truth=some, gallery=gallery, attacks=[*ATTACKS, blind])
    results = run(both, tmp_path / "both")
    assert control_of(results, "positive").passed
    trials = Trials(
        tuple(
            RunFolder(tmp_path / "both").trial(cell.stem)
            for cell in (tmp_path / "both" / "cells").glob("*.json")
        )
    )
    assert succeeds(both, trials, "analytic") is True
    assert succeeds(both, trials, "Blind") is False
    assert lacks_power(both, trials, "analytic", 0.9, None) == ""
    assert "may be chance" in lacks_power(both, trials, "Blind", 0.9, None)
    otherwise = [t for t in trials.of_role("audit") if t.cell.attack == "analytic"]
    alone = effort(Group(tuple(replace(t, searched_by="spans") for t in otherwise)), Group(()))
    assert "here it searched by what layers' inputs span" in lacks_power(
        both, trials, "analytic", 0.9, alone
    )
