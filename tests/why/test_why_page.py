"""The page: nothing hostile, no faces unless asked for, the same bytes twice."""

import json
import re
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from fedaudit.core.measures import Evidence
from fedaudit.reports import explanation_wording
from fedaudit.reports.explanation import (
    PARTS,
    Explanation,
)
from fedaudit.reports.explanation_page import render
from fedaudit.reports.html import source_hash
from fedaudit.reports.serialization import adapter, canonical_bytes, schema

sys.path.insert(0, str(Path(__file__).parent))
from made_up_explanation import HOSTILE, made_up


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
