"""The page and the command: nothing hostile, no faces unless asked for, the same bytes twice."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.errors import DataError, RunFolderError
from fedaudit.core.measures import Estimate, Evidence, Rate
from fedaudit.reports import explanation_wording
from fedaudit.reports.build import results_of
from fedaudit.reports.explanation import (
    PARTS,
    Explanation,
    Game,
    Layer,
    Layers,
    Leakage,
    Origin,
    Player,
    Region,
    Regions,
    Round,
)
from fedaudit.reports.explanation_page import render
from fedaudit.reports.html import source_hash
from fedaudit.reports.serialization import adapter, canonical_bytes, read_results, schema
from fedaudit.scoring.image_metrics import LPIPS
from fedaudit.study.executors.choice import Place
from fedaudit.study.executors.in_process import InProcess
from fedaudit.study.scheduler import execute
from fedaudit.study.study_file import load_study
from fedaudit.study.worker import Outcome
from fedaudit.why.parts import Options, explain

HOSTILE = '</script><script>alert(1)</script>"\u202e'


def about(value: float, width: float = 0.1) -> Estimate:
    return Estimate(value, value - width, value + width, 4, "Student's t over targets")


def leak(value: float) -> Leakage:
    hits = Rate(3, 4, 0.75, 0.19, 0.99)
    return Leakage(about(value), about(0.05), about(value - 0.05), about(0.6), hits, hits, 40)


def made_up(name: str = "a study") -> Explanation:
    parts = [("eyes", 0.9, 0.2), ("nose", 0.8, 0.3), ("mouth", 0.7, 0.4), ("outline", 0.6, 0.1)]
    layers = (
        Layer(name, ("a.",), 960, leak(0.1), leak(0.9), about(0.0)),
        Layer("embedding", ("embedding.",), 262144, leak(0.6), leak(0.3), about(0.6)),
        Layer("head", ("head.",), 3840, None, None, None),
    )
    clients = tuple(
        Player(f"{name} {k}", about(0.7), about(0.4), about(0.5), about(0.3), about(hidden))
        for k, hidden in enumerate((0.4, -0.4))
    )
    things = (Player(name, about(0.3), about(0.5), about(0.2)),)
    return Explanation(
        schema_version="1",
        study=name,
        scenario=name,
        network=name,
        method=name,
        defense="none",
        round=1,
        batch_size=1,
        image_size=32,
        threat_model="D",
        attacks=(name,),
        skipped=(name,),
        targets=4,
        seed=0,
        layers=Layers(leak(0.9), layers),
        rounds=(Round(1, leak(0.9), 0.6), Round(10, leak(0.5), None)),
        regions=Regions(
            tuple(
                Region(n, 0.25, about(s), about(0.1), about(h), about(h), about(h))
                for n, s, h in parts
            ),
            16,
            tuple(torch.linspace(0, 1, 256).tolist()),
            tuple(torch.linspace(0, 2, 256).tolist()),
            tuple(torch.linspace(2, 0, 256).tolist()),
            about(0.8),
            "blocks.9",
        ),
        artifacts=Game(things, about(0.1), about(0.9), "exact", 32),
        clients=Game(clients, about(0.0), about(0.9), "sampled", 31),
        notes=(name,),
        source=Origin("0", name, None, {"torch": "2"}, {name: "00"}, name),
    )


@cache
def drawn(name: str = "a study") -> str:
    """The default page; charts take a second each time."""
    return render(made_up(name), "redacted")


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_names_appear_as_text() -> None:
    page = drawn(HOSTILE)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page
    honest = Tags(drawn()).found
    assert [tag for tag, _ in Tags(page).found] == [tag for tag, _ in honest]


def test_the_policy_fits_the_page() -> None:
    page = drawn()
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    policy = next(a for t, a in Tags(page).found if t == "meta" and "http-equiv" in a)["content"]
    assert policy is not None
    assert source_hash(style) in policy
    assert "default-src 'none'" in policy
    for _, attributes in Tags(page).found:
        assert not [a for a in attributes if a == "style" or a.startswith("on")]
        link = attributes.get("src") or attributes.get("href") or ""
        assert link == "" or link.startswith(("#", "data:image/png"))


def test_charts_have_words_and_numbers() -> None:
    page = drawn()
    found = Tags(page).found
    charts = [a["aria-label"] for t, a in found if t == "div" and a.get("class") == "scroll chart"]
    assert len(charts) == 5
    assert all(len(label or "") > 40 for label in charts)
    assert len([t for t, _ in found if t == "table"]) == 5
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in found:
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_faces_are_shown_under_full_evidence_only() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    faces = [{"original": image, "reconstruction": image, "heat": torch.rand(1, 32, 32)}]
    assert "<img" not in render(made_up(), "redacted", faces)
    page = render(made_up(), "full", faces)
    assert page.count("<img") == 3
    assert "Contains biometric data" in page


def test_same_bytes_twice_and_through_json() -> None:
    why = made_up()
    again = adapter(Explanation).validate_json(canonical_bytes(why))
    assert again == why
    assert canonical_bytes(again) == canonical_bytes(why)
    assert render(again, "redacted") == drawn()
    assert "Layer" in json.dumps(schema(Explanation))


def test_what_was_not_tested_is_never_zero() -> None:
    bare = replace(made_up(), **dict.fromkeys(PARTS))  # type: ignore[arg-type]
    page = render(bare, "redacted")
    assert page.count("— Not tested.") == 5
    assert explanation_wording.findings(bare) == ()
    assert "— not tested" in drawn()  # the head, whose layer is None


def test_the_sentences_say_what_the_numbers_say() -> None:
    layers, rounds, regions, things, clients = explanation_wording.findings(made_up())
    assert "embedding leaks most: SSIM 0.60" in layers
    assert "Least replaceable is embedding" in layers
    assert "highest in round 1 (SSIM 0.90" in rounds
    assert "Best recovered: eyes (local SSIM 0.90); least: outline (0.60)" in regions
    assert "loses most where the region mouth is painted over (0.40" in regions
    assert "densest in the region mouth (1.60 times" in regions
    assert "adds most: 0.50" in things
    assert "lose by being together: a study 1" in clients
    assert "hides a study 0" in clients


@pytest.mark.slow
@pytest.mark.browser
def test_axe_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "reports"))
    from tour import look

    picture = torch.full((1, 3, 32, 32), 0.5)
    faces = [{"original": picture, "reconstruction": picture, "heat": torch.eye(32)[None]}]
    levels: tuple[Evidence, ...] = ("full", "redacted")
    files = {level: tmp_path / f"{level}.html" for level in levels}
    for level in levels:
        files[level].write_text(render(made_up(), level, faces), "utf-8")
    light = {"name": "light", "page": files["full"].as_uri(), "width": 1400}
    dark = {"name": "dark", "page": files["redacted"].as_uri(), "width": 390, "dark": True}
    seen = look([{**view, "axe": True, "inPictures": True} for view in (light, dark)], tmp_path)
    for name, saw in seen.items():
        assert saw["requests"] == saw["complaints"] == []
        assert saw["axe"]["violations"] == saw["axe"]["contrast"] == []
        assert saw["inPictures"]["weak"] == []
        assert saw["quiet"]["dark"] is (name == "dark")
        assert not saw["quiet"]["sideways"]
        assert not [chart for chart in saw["quiet"]["charts"] if chart["cropped"]]


# --- the command ----------------------------------------------------------------------------------

STUDY = """
name = "<b>tiny</b>"
size = 16
utility = false
data = "orl"
[federation]
clients = 2
held_out = 4
[[scenario]]
name = "fresh"
network = "small_cnn"
method = "fedavg"
attacks = [{ name = "inverting_gradients", steps = 2, polish = 0 }]
"""


def at_once(jobs: Sequence[Any], work: Any, _: Any, **settings: Any) -> tuple[Outcome, ...]:
    """`execute` without processes: they would not know what a test replaces."""
    return execute(jobs, work, InProcess(), **settings)


@pytest.fixture
def fedaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command line in a folder with a tiny `study.toml`, without a face embedder."""
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedaudit.why.prepare_subject.judge_of", lambda *_: (None, None))
    monkeypatch.setattr("fedaudit.study.session.execute", at_once)
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))

    def command(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fedaudit", *args])
        return end(cli, args)

    return command


@pytest.mark.slow
def test_a_study_is_explained_twice_alike_and_goes_on(
    fedaudit: Callable[..., int], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--targets", "2", "--rounds", "1,2", "--pairs", "2")
    parts = "rounds,regions,clients"
    assert fedaudit("why", "study.toml", "-o", "one", "--what", parts, *options) == 0
    said = capsys.readouterr()
    assert "page: one/why.html" in said.out
    assert " done, " in said.err
    assert fedaudit("why", "study.toml", "-o", "two", "--what", parts, *options, "-q") == 0
    for name in ("why.json", "why.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "why.html").read_text()
    assert "<img" not in page
    assert "<b>tiny" not in page
    assert not (tmp_path / "one" / "evidence").exists()
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    why = adapter(Explanation).validate_json((tmp_path / "one" / "why.json").read_bytes())
    assert why.artifacts is None
    assert why.clients is not None
    assert len(why.clients.players) == 2
    assert why.regions is not None
    assert why.regions.heat == ()

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", no_more)
    before = (tmp_path / "one" / "why.json").read_bytes()
    assert fedaudit("why", "study.toml", "-o", "one", "--what", parts, *options) == 0
    assert (tmp_path / "one" / "why.json").read_bytes() == before


@pytest.mark.slow  # the executor has a test of two workers, test_parts of every measurement
def test_workers_measure_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    study = load_study(tmp_path / "study.toml")
    options = Options(parts=("rounds",), rounds=(1, 2), targets=2, place=Place(workers=2))
    explain(study, None, tmp_path / "two", options)
    events = (tmp_path / "two" / "log.jsonl").read_text()
    assert '"session"' in events
    assert '"failed"' not in events
    monkeypatch.setattr("fedaudit.study.session.execute", at_once)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        explain(study, None, tmp_path / "one", options)
    finally:
        torch.set_num_threads(threads)
    one, two = ((tmp_path / name / "why.json").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_a_report_of_the_folder_holds_the_explanation(
    fedaudit: Callable[..., int], tmp_path: Path
) -> None:
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert fedaudit("report", "out") in {0, 3}
    results = read_results((tmp_path / "out" / "results.json").read_bytes())
    explanation = adapter(Explanation).validate_json((tmp_path / "out" / "why.json").read_bytes())
    assert results.explanation == explanation
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'id="figure-rounds"' in page
    assert "<b>tiny" not in page
    (tmp_path / "out" / "why.json").write_text("{")
    with pytest.raises(RunFolderError, match="fedaudit why"):
        results_of(tmp_path / "out")


def test_a_failure_is_not_a_part_that_was_not_tested(
    fedaudit: Callable[..., int], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DataError("no such photo")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", refuse)
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2")
    assert fedaudit("why", "study.toml", "-o", "refused", *options) == 0
    assert "rounds: not tested: no such photo" in capsys.readouterr().err

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("fedaudit.why.explained_scenario.Subject.best_attack", fail)
    assert fedaudit("why", "study.toml", "-o", "failed", *options) == 4
    assert "a bug" in capsys.readouterr().err


def test_a_folder_holds_one_study(
    fedaudit: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    options = ("--what", "rounds", "--rounds", "1", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    (tmp_path / "study.toml").write_text(STUDY.replace("clients = 2", "clients = 3"))
    assert fedaudit("why", "study.toml", "-o", "out", *options) != 0
    assert "holds another study" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert fedaudit("why", "study.toml", "-o", "full", *options) != 0
    assert "thesis.tex" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--what", "layer"), "'layer' is none of layers, rounds"),
        (("--rounds", "0,2"), "counted from 1"),
        (("--rounds", "two"), "no list of rounds"),
        (("--scenario", "frsh"), "did you mean 'fresh'"),
        (("--targets", "1"), "2<=x<=999"),
    ],
)
def test_bad_input_is_explained(
    args: tuple[str, ...], message: str, fedaudit: Callable[..., int], capsys: Any
) -> None:
    assert fedaudit("why", "study.toml", "-o", "out", *args) == 2
    assert message in capsys.readouterr().err


def test_the_example_is_a_study() -> None:
    study = load_study(Path(__file__).parents[2] / "examples" / "why.toml")
    assert [s.round for s in study.scenarios] == [1, 10]


def test_full_evidence_keeps_and_shows_faces(fedaudit: Callable[..., int], tmp_path: Path) -> None:
    options = ("--what", "regions", "--targets", "2", "-q")
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert fedaudit("why", "study.toml", "-o", "out", *options, "--evidence", "full") == 0
    page = (tmp_path / "out" / "why.html").read_text()
    assert page.count("<img") == 4  # two targets, original and reconstruction, no heat
    assert fedaudit("why", "study.toml", "-o", "out", *options) == 0
    assert "<img" not in (tmp_path / "out" / "why.html").read_text()
