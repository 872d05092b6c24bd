"""The command line in this process, with plugins and work that take no time."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from fedaudit.cli import COMMANDS, options
from fedaudit.core import measures, registry
from fedaudit.reports import comparison
from fedaudit.study import session
from fedaudit.study.jobs import AttackJob, Job, TrainJob
from fedaudit.study.measured_costs import Cost

Command = Callable[..., int]


def test_help_is_quick_and_complete() -> None:
    before = os.times()
    code = "import sys; sys.argv[1:] = ['--help']; from fedaudit.cli import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = os.times()  # CPU seconds of the child: half a second, however busy the computer is
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1.5
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("name", ["run", "report", "list", "explain", "schema", "demo"])
def test_every_help_has_examples(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert fedaudit(name, "--help") == 0
    out = capsys.readouterr().out
    assert f"Examples:\n    fedaudit {name}" in out


def test_usage_errors_name_the_closest_match(
    fedaudit: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, words in {
        ("rnu",): "error: unknown command 'rnu': did you mean 'run'?",
        ("qqq",): "choose from demo, run",
        ("run", "study.toml", "--outputt", "x"): "--output",
        ("run",): "Missing argument 'STUDY'",
        ("run", "study.toml", "--workers", "0"): "0 is not in the range",
        ("run", "none.toml"): "error: there is no study file 'none.toml'",
        ("explain", "quik"): "unknown plugin 'quik'",
        ("report", "study.toml"): "is not a run folder",
        ("list", "attack"): "unknown kind 'attack': did you mean 'attacks'?",
        ("explain", "attacks"): "Write: fedaudit list attacks",
        ("--nonsense",): "No such option",
    }.items():
        expected = 4 if args[0] == "report" else 2
        assert fedaudit(*args) == expected, args
        captured = capsys.readouterr()
        assert words in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
    assert fedaudit() == 2
    assert "Commands:" in capsys.readouterr().err
    assert fedaudit("--version") == 0
    assert re.fullmatch(r"fedaudit \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_run_report_and_go_on(
    fedaudit: Command,
    fakes: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert not (tmp_path / "runs").exists()
    plan = capsys.readouterr().out
    assert "runs/study (new)" in plan
    assert f"jobs      {fakes.JOBS}, of which {fakes.JOBS} are to do" in plan
    assert "fresh: 2 defenses × 1 attack × 4 targets × 1 seed = 8 cells, and 18 controls" in plan
    assert "no estimate before the first cells are done" in plan
    assert "note      dpsgd: the network of fake was changed." in plan
    assert fedaudit("run", "study.toml") == 0
    captured = capsys.readouterr()
    assert captured.out == "LEAK DEMONSTRATED: 3 of 4.\nreport: runs/study/report.html\n"
    assert f"{fakes.JOBS}/{fakes.JOBS} done" in captured.err
    assert (tmp_path / "runs/study/report.html").read_text() == "evidence redacted"
    assert not (tmp_path / "runs/study/evidence").exists()
    fakes.settings["fail"] = ["--"]  # nothing is done again
    assert fedaudit("run", "study.toml") == 0
    assert f"{fakes.JOBS} of {fakes.JOBS} jobs were done before" in capsys.readouterr().err
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert "everything is done" in capsys.readouterr().out
    (tmp_path / "runs/study/cells").rename(tmp_path / "runs/study/hidden")
    (tmp_path / "runs/study/cells").mkdir()
    assert fedaudit("report", "runs/study", "--evidence", "none", "-o", "copy.html") == 0
    captured = capsys.readouterr()
    assert "note: missing, so not tested: fresh--" in captured.err
    assert "copy: copy.html" in captured.out
    assert (tmp_path / "copy.html").read_text() == "evidence none"
    monkeypatch.setattr("fedaudit.reports.pdf.pdf", lambda page: f"%PDF of {page}".encode())
    assert fedaudit("report", "runs/study", "--evidence", "none", "-o", "copy.pdf") == 0
    assert (tmp_path / "copy.pdf").read_text() == "%PDF of evidence none"
    assert not (tmp_path / "runs/study/report.pdf").exists()


def test_a_sequential_run_ends_and_goes_on_where_it_is_decided(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tmp_path / "study.toml").read_text().replace("targets = 4", "targets = 16")
    (tmp_path / "study.toml").write_text(text)

    def attacked(run: str, defense: str) -> int:
        return len(list(tmp_path.glob(f"{run}/cells/fresh--{defense}--*--audit--*.json")))

    assert fedaudit("run", "study.toml", "--sequential", "--dry-run") == 0
    assert "looks     fresh: after 4, 8, 12 and 16 targets" in capsys.readouterr().out
    fakes.settings["decided"] = {"fresh/none": 4, "fresh/dpsgd": 12}
    assert fedaudit("run", "study.toml", "--sequential", "-o", "whole") == 0
    assert (attacked("whole", "none"), attacked("whole", "dpsgd")) == (4, 12)
    assert "fresh, none: stopped after 4 targets: decided" in capsys.readouterr().err
    # Nothing more is done by the same command; and a run that was cut short comes to the same.
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("whole/cells/*")}
    assert fedaudit("run", "study.toml", "--sequential", "-o", "whole") == 0
    after = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("whole/cells/*")}
    assert after == before
    assert fedaudit("run", "study.toml", "--sequential", "-o", "cut", "--budget", "0.01s") == 0
    assert len(list(tmp_path.glob("cut/cells/*.json"))) < len(before) / 2
    assert fedaudit("run", "study.toml", "--sequential", "-o", "cut") == 0
    assert {file.name for file in tmp_path.glob("cut/cells/*")} == before.keys()
    # A folder that was begun one way is not finished the other way: its looks would not count.
    assert fedaudit("run", "study.toml", "-o", "whole") == 4
    assert "sequential is True there and False here" in capsys.readouterr().err


def test_nothing_tested_because_all_failed(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings.update({"fail": ["--"], "headline": "NOT TESTED"})
    assert fedaudit("run", "study.toml") == 4
    out = capsys.readouterr().out
    assert re.match(rf"NOT TESTED: \d+ of {fakes.JOBS} jobs failed, so that there is", out)
    fakes.settings.pop("fail")
    assert fedaudit("report", "runs/study") == 3
    out = capsys.readouterr().out
    assert re.match(rf"NOT TESTED: \d+ of {fakes.JOBS} jobs have no result, so that", out)


def test_estimate_from_what_is_done(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings["fail"] = ["fresh--dpsgd"]
    assert fedaudit("run", "study.toml", "--quiet") == 4
    err = capsys.readouterr().err
    assert "elapsed" not in err
    assert f"error: 10 of {fakes.JOBS} jobs failed; the report says" in err
    assert "\nfresh--dpsgd--quick--audit--t000--s0: it was told to fail.\nAll messages" in err
    assert "stand in runs/study/failed. --retry-failed tries them again." in err
    assert err.count("told to fail") == 2  # as it happens, and in the end
    assert fedaudit("run", "study.toml", "--dry-run", "--workers", "1") == 0
    plan = capsys.readouterr().out
    assert re.search(r"time      about [01] s: 10 of 10 jobs are like ones that", plan)


def test_a_plan_says_what_such_jobs_took_on_this_machine(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another folder, before any of its cells is done."""
    assert fedaudit("run", "study.toml", "-o", "first") == 0
    capsys.readouterr()
    kinds = json.loads((tmp_path / "costs.json").read_text())
    for kind in kinds:
        kinds[kind] |= {"seconds": 30.0, "memory": 3 * 10**9}
    (tmp_path / "costs.json").write_text(json.dumps(kinds))
    plan = ("run", "study.toml", "-o", "second", "--dry-run", "--workers", "2")
    assert fedaudit(*plan, "--cell-memory", "2G") == 0
    told = capsys.readouterr().out
    minutes, seconds = divmod(30 * fakes.JOBS // 2, 60)
    assert re.search(rf"time      about {minutes} min {seconds} s: (\d+) of \1 jobs", told)
    assert "held up to 3 GB with such jobs here, which is more than --cell-memory allows" in told
    assert "6 GB on all workers" in told
    # Another image size costs another time, which is not known.
    other = (tmp_path / "study.toml").read_text().replace('name = "fake"', 'name = "f"\nsize = 32')
    (tmp_path / "study.toml").write_text(other)
    assert fedaudit(*plan) == 0
    assert "no estimate before the first cells are done" in capsys.readouterr().out
    (tmp_path / "costs.json").write_text("[")
    assert fedaudit(*plan) == 0


def test_trainings_say_nothing_of_what_attacks_take(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_models(_: object, jobs: Iterable[Job], device: str) -> dict[str, Cost]:
        return {job.key: Cost(5.0, 0, 1) for job in jobs if isinstance(job, TrainJob)}

    monkeypatch.setattr("fedaudit.cli.plan.known_costs", of_models)
    assert fedaudit("run", "study.toml", "--dry-run") == 0
    assert "no estimate before the first cells are done" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_few_cheap_cells_do_not_stand_for_a_study(
    share: float,
    fedaudit: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One defense's cells may cost a tenth of another's in the same group."""
    kinds: list[bool] = []

    def measured(_: object, jobs: Iterable[Job], device: str) -> dict[str, Cost]:
        del device
        jobs = list(jobs)
        kinds.extend(isinstance(job, TrainJob) for job in jobs)
        cells = [job.key for job in jobs if isinstance(job, AttackJob)]
        costs = {key: Cost(1.0, 0, 1) for key in cells[: round(share * len(cells))]}
        return costs | {job.key: Cost(100.0, 0, 1) for job in jobs if isinstance(job, TrainJob)}

    monkeypatch.setattr("fedaudit.cli.plan.known_costs", measured)
    assert fedaudit("run", "study.toml", "--dry-run", "--workers", "1") == 0
    told = capsys.readouterr().out
    if share < 0.5:
        assert "no estimate before the first cells are done" in told
        return
    minutes, seconds = divmod(100 * sum(kinds) + len(kinds) - sum(kinds), 60)
    assert re.search(rf"about {minutes} min {seconds} s: \d+ of {len(kinds)} jobs are like", told)
    assert "the others are taken to cost as much" in told


def test_after_the_budget_nothing_begins_and_it_is_concluded_from_what_there_is(
    fedaudit: Command, fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.settings["seconds"] = 0.05
    assert fedaudit("run", "study.toml", "--budget", "0.3s") == 0
    some = len(list(tmp_path.glob("runs/study/*/*.json")))
    assert 0 < some < fakes.JOBS / 2
    assert capsys.readouterr().out.startswith("LEAK DEMONSTRATED")
    fakes.settings["seconds"] = 0
    assert fedaudit("run", "study.toml") == 0
    assert len(list(tmp_path.glob("runs/study/cells/*.json"))) == fakes.JOBS - 10


@pytest.mark.parametrize(
    ("settings", "args", "code"),
    [
        ({}, (), 0),
        ({"headline": "NO LEAK FOUND ABOVE LIMIT"}, (), 0),
        ({"headline": "INVALID"}, (), 3),
        ({"headline": "INVALID"}, ("--fail-on", "low"), 3),
        ({"headline": "INCONCLUSIVE"}, (), 3),
        ({"headline": "INCONCLUSIVE"}, ("--fail-on", "medium"), 1),
        ({"headline": "NOT TESTED"}, (), 3),
        ({"headline": "COMPARISON"}, (), 0),
        ({}, ("--fail-on", "medium"), 1),
        ({}, ("--fail-on", "high"), 0),
        ({"severity": "critical"}, ("--fail-on", "high"), 1),
        ({"fail": ["t001"]}, ("--fail-on", "medium"), 4),
        ({"fail": ["report"]}, (), 4),
    ],
)
def test_exit_codes(
    fedaudit: Command, fakes: Any, settings: dict[str, Any], args: tuple[str, ...], code: int
) -> None:
    fakes.settings.update(settings)
    assert fedaudit("run", "study.toml", *args) == code
    if "fail" not in settings:
        assert fedaudit("report", "runs/study", *args) == code


def test_people_who_may_be_one_are_told_at_the_end(
    fedaudit: Command, fakes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "person-1 and person-2 look like one person under two names to the judge."
    fakes.settings["limitations"] = ("Something else.", one)
    assert fedaudit("run", "study.toml") == 0
    told = capsys.readouterr().err
    assert f"note: {one} Who they are: fedaudit names runs/study" in told
    assert "Something else" not in told


def test_a_gate_needs_to_know_what_is_deployed(
    fedaudit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(study.replace('deployed = "dpsgd"\n', ""))
    assert fedaudit("run", "study.toml") == 0
    for command in (("run", "study.toml"), ("report", "runs/study")):
        capsys.readouterr()
        assert fedaudit(*command, "--fail-on", "low") == 2
        err = capsys.readouterr().err
        assert "compares 2 defenses" in err
        assert 'Write deployed = "dpsgd"' in err
    (tmp_path / "study.toml").write_text(study.replace('"dpsgd"\n', '"dpsdg"\n', 1))
    assert fedaudit("run", "study.toml", "--dry-run") == 2
    err = capsys.readouterr().err
    assert "study.toml: deployed: unknown defense label 'dpsdg': did you mean 'dpsgd'?" in err
    # It changes no cell: the same folder goes on under another name for what is deployed.
    (tmp_path / "study.toml").write_text(study.replace('"dpsgd"\n', '["none", "dpsgd"]\n', 1))
    assert fedaudit("run", "study.toml", "--fail-on", "high") == 0


def test_evidence(fedaudit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("run", "study.toml", "--evidence", "full", "-o", "full") == 0
    assert (tmp_path / "full/report.html").read_text() == "evidence full"
    assert list((tmp_path / "full/evidence").iterdir())
    assert fedaudit("report", "full") == 0
    assert (tmp_path / "full/report.html").read_text() == "evidence redacted"
    assert fedaudit("run", "study.toml", "-o", "full") == 0  # goes on as begun
    assert (tmp_path / "full/report.html").read_text() == "evidence full"
    assert fedaudit("run", "study.toml") == 0
    assert fedaudit("report", "runs/study", "--evidence", "full") == 2
    assert "has no originals to show" in capsys.readouterr().err
    assert fedaudit("run", "study.toml", "--evidence", "none") == 2


def test_demo(fedaudit: Command, fakes: Any, tmp_path: Path) -> None:
    fakes.settings["headline"] = "INCONCLUSIVE"
    assert fedaudit("demo", "--quick") == 0
    for name in ("demo-run-quick", "demo-run-quick-color"):
        assert (tmp_path / name / "report.html").read_text() == "evidence full"
    assert fedaudit("demo", "--seed", "3") == 0
    assert list((tmp_path / "demo-run-seed3/cells").glob("*--s3.json"))
    fakes.settings["fail"] = ["noise"]
    assert fedaudit("demo", "-o", "other") == 4


def test_listing(fedaudit: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("list", "threat-models") == 0
    assert "D  Data-enhanced" in capsys.readouterr().out
    assert fedaudit("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"kind", "name", "summary"} == set(rows[0])
    assert {row["kind"] for row in rows} >= {"attacks", "defenses", "networks", "threat-models"}
    assert fedaudit("list") == 0
    out = capsys.readouterr().out
    assert "\nthreat-models\n  A " in out
    assert "\nmetrics  (for plugins; not set in a study)\n" in out


def test_listing_survives_a_broken_plugin(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(kind: str, name: str) -> Any:
        raise ImportError("no module 'x'")

    monkeypatch.setattr(registry, "lookup", broken)
    assert fedaudit("list", "attacks") == 0
    assert "(cannot be loaded: no module 'x')" in capsys.readouterr().out
    assert fedaudit("explain", "gan_inversion") == 4
    assert "cannot be imported" in capsys.readouterr().err


def test_explain(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "names", lambda kind: ("quick",) if kind == "attacks" else ())
    assert fedaudit("explain", "quick") == 0
    out = capsys.readouterr().out
    assert out.startswith("quick (attack)\n\nGuesses.")
    assert "\n  steps: int = 1\n" in out
    assert "Needs to know:\n  model: architecture" in out
    assert fedaudit("explain", "quick", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["settings"][0] == {"name": "steps", "type": "int", "default": "1"}
    assert fedaudit("explain", "D") == 0
    assert "Grants: auxiliary, basic" in capsys.readouterr().out


def test_schemas(fedaudit: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("schema", "study") == 0
    assert "scenario" in json.loads(capsys.readouterr().out)["properties"]
    assert fedaudit("schema", "results") == 0
    assert "headline" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(("reader", "words"), [("> /dev/full", "disk is full"), ("| true", "")])
def test_stdout_that_takes_nothing(reader: str, words: str) -> None:
    code = "import sys; sys.argv[1:] = ['schema', 'study']; from fedaudit.cli import main; main()"
    shell = f'{sys.executable} -c "$CODE" {reader}; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", shell],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout in {"4\n", "0\n"} if reader == "| true" else done.stdout == "4\n"
    assert words in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


def test_words_of_the_options() -> None:
    assert get_args(measures.Evidence) == options.EVIDENCE
    assert get_args(comparison.Severity) == (*options.GATES, "none")


def test_unexpected_errors_are_one_message(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **settings: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(session, "execute", fail)
    assert fedaudit("run", "study.toml") == 4
    err = capsys.readouterr().err
    assert "error: ZeroDivisionError: by zero\nFEDAUDIT_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("FEDAUDIT_DEBUG", "1")
    assert fedaudit("run", "study.toml") == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_says_how_to_go_on(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    atomic = importlib.import_module("fedaudit.files.atomic")
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "os", SimpleNamespace(**{**vars(atomic.os), "fsync": full}))
        assert fedaudit("run", "study.toml") == 4
    assert "the disk is full" in (err := capsys.readouterr().err)
    assert err.endswith("\n  fedaudit run study.toml\n")
    assert fedaudit("run", "study.toml") == 0


def test_an_interrupt_says_how_to_go_on(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "execute", interrupt)
    assert fedaudit("run", "study.toml", "-o", "a b") == 130
    assert capsys.readouterr().err.endswith("Go on with:\n  fedaudit run study.toml -o 'a b'\n")
    monkeypatch.setattr(registry, "names", interrupt)
    assert fedaudit("list", "attacks") == 130
