"""`fedaudit compare` and `fedaudit recommend` on a small, real run."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedaudit.cli import cli
from fedaudit.reports import build

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from sample import sample

STUDY = """
name = "defenses"
size = 32
utility_seeds = 1
[federation]
clients = 2
rounds = 1
local_steps = 1
[[scenario]]
name = "fresh"
method = "fedsgd"
targets = 3
attacks = [
    {name = "inverting_gradients", label = "blind", adapt = "no", steps = 2, polish = 0},
    {name = "inverting_gradients", label = "adapted", steps = 2, polish = 0},
]
defenses = ["none", {name = "top_k", sweep = {pruned = [0.5, 0.9, 0.99]}}, "sign"]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "study.toml").write_text(STUDY)
    made = folder / "made"
    arguments = ["run", str(folder / "study.toml"), "--output", str(made), "--workers", "1"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    # A cell that failed, for want of memory say, is named here, and not as a missing number below.
    assert result.return_value == 0, result.output
    return made


@pytest.mark.slow
def test_compare_has_a_line_for_each_defense(run: Path) -> None:
    plain = CliRunner().invoke(cli, ["compare", str(run), "--format", "json"])
    lines = json.loads(plain.output)
    assert [x["defense"] for x in lines] == ["none", "top_k-0.5", "top_k-0.9", "top_k-0.99", "sign"]
    undefended, pruned, *_, signs = lines
    assert undefended["reduction"] is None
    assert signs["reduction"]["n"] == 3
    assert pruned["reid_blind"]["n"] == pruned["reid_adapted"]["n"] == 3
    assert all(x["utility"]["step_seconds"] > 0 for x in lines)
    assert signs["utility"]["bytes_sent"] == -(-undefended["utility"]["bytes_sent"] // 32)
    shares = [x["utility"]["bytes_sent"] for x in lines[1:4]]
    assert shares == sorted(shares, reverse=True)
    table = CliRunner().invoke(cli, ["compare", str(run), "--format", "markdown"]).output
    assert len(table.splitlines()) == 2 + len(lines)
    assert (run / "report.html").read_text().count("top_k, by pruned") == 1


@pytest.mark.slow
def test_what_trained_for_one_step_is_never_recommended(run: Path) -> None:
    asked = ["recommend", str(run), "--max-reid", "1", "--min-accuracy", "0"]
    useless = CliRunner().invoke(cli, asked, standalone_mode=False)
    assert useless.return_value == 1
    assert "no defense was measured to satisfy both" in useless.output
    assert "not shown to beat the untrained network" in useless.output
    assert "[no gain]" in useless.output


def test_recommend_names_what_was_measured_or_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "results_of", lambda _: sample())
    asked = ["recommend", str(tmp_path), "--scenario", "fresh-b1", "--max-reid", "1"]
    fine = CliRunner().invoke(cli, [*asked, "--min-accuracy", "0"], standalone_mode=False)
    assert fine.return_value == 0
    assert "measured to satisfy both" in fine.output
    strict = [*asked[:-1], "0", "--min-accuracy", "1"]
    none = CliRunner().invoke(cli, strict, standalone_mode=False)
    assert none.return_value == 1
    assert "Nearest:" in none.output
    # What nobody came back under, but was not shown to train, stands in a list of its own.
    near, words, apart = none.output.partition("no use of training under them was shown:")
    assert words
    assert "[no gain]" not in near
    assert "[no gain]" in apart
    assert "[too leaky]" in near
    assert "[too leaky]" not in apart
    plain = json.loads(CliRunner().invoke(cli, [*strict, "--json"]).output)
    assert plain[0]["satisfied"] == []
    assert {c["standing"] for c in plain[0]["candidates"]} <= {"too costly", "too leaky", "no gain"}


def test_recommend_marks_the_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [x for x in sample().defenses if x.name == "none"]
    as_control = replace(sample(), defenses=tuple(replace(x, role="control") for x in lines))
    monkeypatch.setattr(build, "results_of", lambda _: as_control)
    asked = ["recommend", str(tmp_path), "--max-reid", "1", "--min-accuracy", "0"]
    assert "none (the control: no defense): " in CliRunner().invoke(cli, asked).output
    (first, *_) = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).output)
    assert first["candidates"][0]["role"] == "control"


def test_recommend_names_what_it_cannot_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [x for x in sample().defenses if x.scenario == "fresh-b1"]
    alike = replace(lines[1], defense="larger_batch", utility=None, same_training=True)
    monkeypatch.setattr(build, "results_of", lambda _: replace(sample(), defenses=(alike, *lines)))
    asked = ["recommend", str(tmp_path), "--max-reid", "1", "--min-accuracy"]
    for least, lead in (("0", "measured to satisfy both"), ("1", "Nearest:")):
        ranked, _, rest = CliRunner().invoke(cli, [*asked, least]).output.partition("not ranked:")
        assert lead in ranked
        assert "larger_batch" not in ranked
        assert "larger_batch: accuracy and cost were not measured: the federation trains so" in rest
        assert "what is not known counts against it [not measured]" in rest


def test_a_wrong_scenario_names_the_closest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "results_of", lambda _: sample())
    asked = [
        "recommend",
        str(tmp_path),
        "--max-reid",
        "1",
        "--min-accuracy",
        "0",
        "--scenario",
        "frech-b1",
    ]
    result = CliRunner().invoke(cli, asked, standalone_mode=False)
    assert "did you mean 'fresh-b1'" in str(result.exception)
