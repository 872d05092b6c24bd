"""A method and an attack in a package of their own: installed, listed, run, reported."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

QUICK = "utility = false"
PACKAGE = Path(__file__).parent.parent / "examples" / "fedaudit-prototypes"
INCONCLUSIVE = 3  # so few targets may well be
Fedaudit = Callable[..., str]


@pytest.fixture(scope="module")
def fedaudit(tmp_path_factory: pytest.TempPathFactory) -> Fedaudit:
    """The command line where the package is installed; this environment stays as it is."""
    place = tmp_path_factory.mktemp("third-party")
    source, site = place / "source", place / "site"
    shutil.copytree(PACKAGE, source)  # pip leaves its build beside the sources
    here = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *here, "--target", str(site)]
    subprocess.run([*pip, str(source)], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = str(Path(sys.executable).with_name("fedaudit"))

    def run(*arguments: str) -> str:
        answer = subprocess.run(
            [command, *arguments],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert answer.returncode in {0, INCONCLUSIVE}, answer.stderr
        return answer.stdout

    return run


@pytest.mark.slow
def test_is_listed_beside_the_built_in_ones(fedaudit: Fedaudit) -> None:
    for kind, name in (("methods", "prototypes"), ("attacks", "mean_face")):
        listed = {one["name"]: one for one in json.loads(fedaudit("list", kind, "--json"))}
        assert name in listed
        assert len(listed) > 5


@pytest.mark.slow
def test_its_study(fedaudit: Fedaudit, tmp_path: Path) -> None:
    """The package's own study with fewer targets: one run, in one test, however many workers."""
    text = (PACKAGE / "study.toml").read_text(encoding="utf-8")
    text = text.partition('[[scenario]]\nname = "trained"')[0]
    text = text.replace('attacks = ["mean_face"]', 'attacks = [{name = "mean_face", faces = 300}]')
    text = text.replace("targets = 10", "targets = 2").replace("size = 32", f"size = 32\n{QUICK}")
    study, run = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(text, encoding="utf-8")
    fedaudit("run", str(study), "--output", str(run), "--workers", "1", "--quiet")
    trials = [
        json.loads(file.read_text(encoding="utf-8"))["body"]
        for file in sorted((run / "cells").glob("*.json"))
    ]
    captured_with_name_and_size(trials[0])
    better_than_on_noise(trials)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    attacked_or_said_not_to_be(results["exposures"])


def captured_with_name_and_size(trial: dict[str, Any]) -> None:
    """Six people a client, embeddings of 128 numbers, four bytes each."""
    sent = {s["name"]: s for s in trial["sent"]}
    assert list(sent) == ["update", "prototypes", "spreads"]
    assert sent["prototypes"]["summary"] == "6 × 128 values"
    assert sent["prototypes"]["bytes"] == 6 * 128 * 4
    assert sent["spreads"]["bytes"] == 6 * 4


def better_than_on_noise(trials: list[dict[str, Any]]) -> None:
    def scores(role: str, what: str) -> list[float]:
        mine = [trial for trial in trials if trial["cell"]["role"] == role]
        return [(image | image["metrics"])[what] for trial in mine for image in trial["images"]]

    assert len(scores("audit", "ssim")) == len(scores("prior_only", "ssim")) == 2 * 6
    assert mean(scores("audit", "ssim")) > mean(scores("prior_only", "ssim")) + 0.3
    assert mean(scores("audit", "cosine")) > mean(scores("prior_only", "cosine")) + 0.08


def attacked_or_said_not_to_be(exposures: list[dict[str, Any]]) -> None:
    cells = {cell["artifact"]: cell for cell in exposures}
    attacked, untouched = cells["prototypes"], cells["spreads"]
    assert attacked["attack"] == "mean_face"
    assert attacked["readers"] == ["mean_face"]
    assert attacked["measurement"]["of"] == "people"
    reid = attacked["measurement"]["reid"]  # six people of one message stand or fall together
    assert (reid["n"], reid["unit"]) == (2, "updates")
    assert untouched["attack"] is None
    assert untouched["measurement"] is None
    assert untouched["verdict"] == "NOT TESTED"
    assert untouched["note"] == "not attacked: no attack reads kind spreads"
