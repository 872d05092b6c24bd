"""A study of pictures that are no faces, from the file to the page."""

import html
import json
import re
import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.scenario import Choice, Study
from fedaudit.files import asset_store
from fedaudit.reports.build import build_report
from fedaudit.reports.image_words import in_words_of_images, page_of_images
from fedaudit.reports.results import Results
from fedaudit.study.deciding_files import needed_assets
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.jobs import expand
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import failures, open_run, run
from fedaudit.study.sources import names_of, source_of
from fedaudit.study.study_check import check_study
from fedaudit.study.study_file import load_study, study_from_mapping
from fedaudit.study.work import Work

EXAMPLES = Path(__file__).parents[2] / "examples" / "pictures"
OF_PEOPLE = re.compile(
    r"\b(persons?|people|faces?|facial|identit(y|ies)|gallery|some(body|one)|no(body|one)|"
    r"any(body|one)|every(body|one)|who|whom|photos?|portraits?|re-id\w*|biometric\w*)\b",
    re.IGNORECASE,
)
TABLE: dict[str, Any] = {
    "name": "blots",
    "data": {"name": "pictures", "size": 16},
    "size": 16,
    "federation": {"clients": 2, "rounds": 1},
    "scenario": [{"name": "mlp", "network": "mlp", "targets": 3, "attacks": ["analytic"]}],
}


def study_of(path: Path, **changes: Any) -> Study:
    """Forty blots of 16 px in two classes, in MedMNIST's layout."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(path / "blots.npz", train_images=pixels, train_labels=np.arange(40)[:, None] % 2)
    data = {"name": "pictures", "path": str(path / "blots.npz")}
    return study_from_mapping({**TABLE, "data": data, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pictures")
    study, find = study_of(place), asset_store.path

    def only_the_distance(name: str, *rest: Any, **more: Any) -> Path:
        assert name == "lpips_alex", f"{name} is of no use for pictures"
        return find(name, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asset_store, "path", only_the_distance)
        with open_run(place / "run", study, command="fedaudit run", evidence="full") as opened:
            for job in expand(study):
                Work(study, opened.folder, "full", "cpu")(job)
    return place / "run"


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return build_report(folder, "full")


def read(page: Path) -> str:
    """What a reader sees or hears of a page."""
    text = re.sub(r"<style.*?</style>|<script.*?</script>", "", page.read_text(), flags=re.DOTALL)
    spoken = " | ".join(re.findall(r'(?:alt|aria-label|title)="([^"]*)"', text))
    return html.unescape(re.sub(r"<[^>]*>", " | ", text) + spoken)


def test_copies_are_found_of_images_and_their_control_is_clean(results: Results) -> None:
    assert results.headline.kind == "LEAK DEMONSTRATED"
    assert "copied 3 of 3 images" in results.headline.sentence
    (row,) = results.rows
    m = row.measurement
    assert m is not None
    assert m.prior is not None
    assert m.identity is not None
    assert (m.prior.hits, m.prior.unit) == (0, "images")
    assert m.identity.candidates == 20, "those of a class that train"
    assert all(control.passed is not False for control in results.controls)
    assert results.subject == "images"


def test_no_word_is_of_people(folder: Path, results: Results) -> None:
    del results
    found = [match[0] for match in OF_PEOPLE.finditer(read(folder / "report.html"))]
    assert not found
    kept = json.loads((folder / "results.json").read_text())
    said = " ".join(text for text in _strings(kept) if " " in text)
    assert not [match[0] for match in OF_PEOPLE.finditer(said)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_names_that_a_study_gives_stay(results: Results) -> None:
    row = replace(results.rows[0], scenario="people-8", attack="face")
    said = replace(results, study="face", rows=(row,), limitations=("face on people-8: people",))
    assert in_words_of_images(said).limitations == ("face on people-8: images",)
    trace = replace(results.headline, kind="TRACE OF IDENTITY", sentence="says who it was")
    told = in_words_of_images(replace(said, headline=trace)).headline
    assert (told.kind, told.sentence) == ("TRACE OF IDENTITY", "says which image it was")
    page = page_of_images("<h1 title='face'>face</h1><p>people</p><style>.people {}</style>", said)
    assert page == "<h1 title='face'>face</h1><p>images</p><style>.people {}</style>"


def test_nothing_of_faces_is_fetched(tmp_path: Path, folder: Path) -> None:
    study = study_of(tmp_path)
    assert [judge.name for judge in study.judges] == ["copies"]
    assert not study.utility
    source = source_of(study, RunFolder(folder))
    assert needed_assets(study, source.facts()) == ("lpips_alex",)


def test_only_who_has_the_images_learns_which_they_are(tmp_path: Path, folder: Path) -> None:
    known = names_of(study_of(tmp_path))
    assert known["0 #1"].startswith("number ")
    assert len(set(known.values())) == 40
    files = [file for file in folder.rglob("*.json*") if file.is_file()]
    assert files
    assert not [file for file in files if re.search(rb"\bnumber \d", file.read_bytes())]


WRONG: dict[str, Callable[[Study], Study]] = {
    "faces' judge": lambda study: replace(study, judges=(Choice("sface"),)),
    "faces' data": lambda study: replace(study, data=Choice("orl")),
}


@pytest.mark.parametrize("case", WRONG)
def test_judges_and_data_are_of_one_kind(tmp_path: Path, case: str) -> None:
    with pytest.raises(ConfigError, match="Remove judges"):
        check_study(WRONG[case](study_of(tmp_path)))


def test_methods_of_people_are_refused(tmp_path: Path) -> None:
    scenario = {**TABLE["scenario"][0], "method": "fedgc"}
    with pytest.raises(DataError, match="share the classes"):
        check_study(study_of(tmp_path, scenario=[scenario]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "medmnist", "x_rays"])
def test_an_example_runs(tmp_path: Path, name: str) -> None:
    runpy.run_path(str(EXAMPLES / "example_data.py"))["main"](tmp_path / "data")
    shutil.copy(EXAMPLES / f"{name}.toml", tmp_path)
    study = load_study(tmp_path / f"{name}.toml")
    short = Choice("subspace_matching", {"face_colors": 0, "steps": 20, "polish": 2})
    scenario = replace(study.scenarios[0], targets=1, attacks=(short,))
    one = replace(study, scenarios=(scenario,))
    with open_run(tmp_path / "run", one, command="fedaudit run", evidence="full") as opened:
        assert failures(opened, run(opened, executor=LocalProcesses(1))) == {}
    results = build_report(tmp_path / "run", "full")
    assert results.rows[0].reid is not None
    assert results.rows[0].reid.unit == "images"
    assert not OF_PEOPLE.search(read(tmp_path / "run" / "report.html"))
