"""The page as text: the same bytes again, every section, nothing that runs, nothing that leaks."""

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args, get_type_hints

import altair as alt
import pytest
from altair.utils import schemapi

from fedaudit.core.measures import Evidence
from fedaudit.reports import charts
from fedaudit.reports.exposure_figure import exposure_map
from fedaudit.reports.html import figures, render, source_hash
from fedaudit.reports.measurement import SecondOpinion
from fedaudit.reports.pictures import BUDGET, trios
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.reports.text import clean

sys.path.insert(0, str(Path(__file__).parent))
from sample import page, pictures, sample

SECTIONS = [
    "verdict",
    "defenses",
    "evidence",
    "exposure",
    "findings",
    "coverage",
    "controls",
    "figures",
    "comparison",
    "method",
    "annex",
    "limitations",
    "provenance",
    "glossary",
]
HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp\x07\u2066{{7*7}}"
)


class Page(HTMLParser):
    """Tags with their attributes, the inline blocks, and the text a reader sees."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.text = ""
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in {"style", "script"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks[self._inside] = self.blocks.get(self._inside, "") + data
        else:
            self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def hostile(value: Any, hint: Any = None) -> Any:
    """A copy with hostile text put into every string that is not one of a fixed set."""
    if isinstance(value, str):
        fixed = any(isinstance(argument, str) for argument in get_args(hint))
        return value if fixed else value + HOSTILE
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        changes = {
            f.name: hostile(getattr(value, f.name), hints[f.name])
            for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changes)
    if isinstance(value, Mapping):
        return {hostile(k): hostile(v) for k, v in value.items()}
    return tuple(hostile(v) for v in value) if isinstance(value, tuple) else value


MATRICES = sum(
    1 + sum(cell is not None for cell in row.cells)
    for matrix in sample().matrices
    for row in matrix.rows
)
"""Pictures of the sample's evidence matrices."""


def test_rendering_again_gives_the_same_bytes() -> None:
    results = sample()
    again = render(results, pictures(results), "full")
    assert again == page("full")
    assert len(again.encode()) < 3_000_000


@pytest.mark.slow
def test_charts_follow_the_schema_whose_checks_a_page_leaves_out() -> None:
    results = clean(sample())
    with charts.unchecked():
        quick = figures(results), exposure_map(results)
    assert schemapi.DEBUG_MODE  # back as it was: altair checks what follows
    assert (figures(results), exposure_map(results)) == quick
    bar = charts.over([{"x": 1}]).mark_bar()
    with pytest.raises(schemapi.SchemaValidationError):
        charts.draw([bar.encode(x=alt.X("x:Q", axis=7))], height=20)


@pytest.mark.slow
def test_the_page_names_the_bytes_it_was_rendered_from() -> None:
    assert sha256(canonical_bytes(sample())).hexdigest() in page("redacted")


@pytest.mark.parametrize("evidence", ["none", "redacted", "full"])
def test_sections_stand_in_their_order(evidence: Evidence) -> None:
    ids = [a["id"] for a in Page(page(evidence)).all("section") if a.get("id") in SECTIONS]
    assert ids == SECTIONS


@pytest.mark.parametrize("evidence", ["none", "redacted", "full"])
def test_nothing_is_loaded_and_nothing_is_inline_but_what_the_policy_names(
    evidence: Evidence,
) -> None:
    parsed = Page(page(evidence))
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("href", "src", "srcset", "action", "xlink:href", "data", "poster"):
            kept = ("data:text/csv", "data:application/json") if "download" in attributes else ()
            fine = ("#", "data:image/png;base64,", *kept)
            assert (attributes.get(name) or "#").startswith(fine)
    policy = next(a for a in parsed.all("meta") if a.get("http-equiv"))["content"] or ""
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src {source_hash(parsed.blocks['style'])};" in policy
    assert f"script-src {source_hash(parsed.blocks['script'])};" in policy
    assert "unsafe" not in policy
    assert not re.search(r"url\(|@import", parsed.blocks["style"])


def test_links_lead_somewhere_and_ids_are_unique() -> None:
    parsed = Page(page("full"))
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a for a in parsed.all("a") if "download" not in a]
    assert {(a.get("href") or "#")[1:] for a in links} <= set(ids)
    opened = {a["popovertarget"] for a in parsed.all("button") if "popovertarget" in a}
    assert opened
    assert opened <= set(ids)


def test_hostile_text_appears_as_text() -> None:
    clean, dirty = Page(page("none")), Page(render(hostile(sample()), None, "none"))
    assert {tag for tag, _ in dirty.tags} <= {tag for tag, _ in clean.tags}
    assert sum(1 for _ in dirty.all("script")) == 1
    assert not list(dirty.all("img"))
    for _, attributes in dirty.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    everything = dirty.text + "".join(v or "" for _, a in dirty.tags for v in a.values())
    assert not set("\u202e\u2066\x07") & set(everything)
    assert "⟨U+202E⟩gnp⟨U+0007⟩⟨U+2066⟩{{7*7}}" in dirty.text


def test_hostile_cell_names_still_find_their_pictures() -> None:
    results: Results = hostile(sample())
    parsed = Page(render(results, pictures(results, size=8), "full"))
    assert sum(1 for _ in parsed.all("img")) == 3 * len(results.exhibits) + 2 + MATRICES
    assert not [a for a in parsed.all("img") if "onerror" in a]


@pytest.mark.parametrize("evidence", ["none", "redacted"])
def test_no_pixel_is_written_unless_faces_were_asked_for(evidence: Evidence) -> None:
    results = sample()
    source = render(results, pictures(results), evidence)
    assert "data:image" not in source
    assert "biometric data</b>" not in source
    assert source == page(evidence), "a second rendering differs"


def test_full_evidence_says_what_it_holds_and_describes_each_face() -> None:
    parsed = Page(page("full"))
    assert "Contains biometric data" in parsed.text
    faces = list(parsed.all("img"))
    assert len(faces) == 3 * 24 + 2 + MATRICES
    assert all(a.get("alt") for a in faces)


def test_large_pictures_shrink_until_the_page_fits() -> None:
    results = sample()
    shown = trios(results.exhibits, pictures(results, size=160))
    uris = [uri or "" for trio in shown for uri in dataclasses.astuple(trio)]
    assert 0.3 * BUDGET < sum(map(len, uris)) <= BUDGET
    assert all(uris)


def test_untested_is_a_dash_and_the_model_states_are_named() -> None:
    results = sample()
    text = Page(page("redacted")).text
    row = re.search(r"Membership inference\s+yes\s+no\s+(\S+)", text)
    assert row is not None
    assert row[1] == "—"
    assert text.count("—not tested") == len(results.rows) + 2 * len(results.defenses)
    for scenario in ("fresh-b1", "pooled-b4"):
        assert re.search(rf"{scenario} +fresh global model \(round 1\)", text)
    assert re.search(r"trained-b1 +trained model \(round 30\)", text)


def test_no_conclusion_is_claimed() -> None:
    text = Page(page("redacted")).text.lower()
    assert not re.search(r"\b(safe|anonymous|compliant|no risk)\b", text)
    assert "not a determination of anonymity or of compliance" in text


def test_every_metric_column_has_direction_unit_and_range() -> None:
    tables = re.sub(r'(?s)<table class="matrix[ a-z]*">.*?</thead>', "", page("redacted"))
    heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)<small>([^<]*)", tables)
    metrics = [(name, unit) for name, unit in heads if name != "Defense"]
    assert len(metrics) > 3 * 15
    for name, unit in metrics:
        assert re.search("[↑↓]", name) or "Holm" in name, name
        assert re.search(r"\d(–|\]| and up)|to 100|points|\[95", unit), (name, unit)


def test_a_study_without_identities_says_so() -> None:
    full = sample(underpowered=False)
    nothing: dict[str, Any] = dict.fromkeys(("reid", "prior", "excess", "rank1", "worst"))
    rows = tuple(
        dataclasses.replace(r, measurement=dataclasses.replace(r.measurement, **nothing))
        for r in full.rows
        if r.measurement
    )
    bare = dataclasses.replace(
        full, rows=rows, points=(), exhibits=(), contrasts=(), ceilings=(), findings=(), controls=()
    )
    text = Page(render(bare, None, "redacted")).text
    assert "Identity was not measured" in text
    assert "nothing to compare" in text
    assert "Under-powered" not in text


def test_what_another_judge_says_of_the_headline_stands_beside_it() -> None:
    results = sample()
    assert results.headline_row is not None
    rows = list(results.rows)
    row = rows[results.headline_row]
    assert row.measurement is not None
    assert row.measurement.reid is not None
    other = SecondOpinion(row.measurement.reid, None, disagreements=2, images=16)
    rows[results.headline_row] = dataclasses.replace(
        row, measurement=dataclasses.replace(row.measurement, others={"dlib": other})
    )
    text = Page(render(dataclasses.replace(results, rows=tuple(rows)), None, "redacted")).text
    counts = f"{other.reid.hits} of {other.reid.n}"
    assert f"another judge, dlib: {counts}; disagrees on 2 of 16 images" in text


def test_an_empty_study_renders() -> None:
    names = [f.name for f in dataclasses.fields(Results)]
    bare: dict[str, Any] = {n: () for n in names if isinstance(getattr(sample(), n), tuple)}
    bare["headline_row"] = None
    text = Page(render(dataclasses.replace(sample(), **bare), None, "full")).text
    assert "Nothing was compared" in text
