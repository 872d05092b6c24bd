"""The page in a real browser: its policy holds, and axe finds nothing to object to."""

import html
import json
import re
import sys
from pathlib import Path

import pytest

from fedaudit.core.measures import Evidence

sys.path.insert(0, str(Path(__file__).parent))
from browser import DARK, LIGHT, axe, load, with_scripts
from sample import page

pytestmark = pytest.mark.browser

# Everything is opened first: axe does not look into closed <details>.
RUN_AXE = """
document.querySelectorAll("details").forEach((d) => { d.open = true; });
axe.run(document, { resultTypes: ["violations"], runOnly: [
  "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then((found) => {
  const out = document.createElement("pre");
  out.id = "axe-result";
  out.textContent = JSON.stringify({
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    passes: found.passes.length,
    wide: document.documentElement.scrollWidth > window.innerWidth,
    violations: found.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200) +
      n.any.map((a) => a.message).join())]) });
  document.body.append(out);
});
"""


def test_the_policy_is_never_violated(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page("full"), "utf-8")
    dom, console = load(file, tmp_path / "profile")
    assert console == ""
    form = re.search(r'<form[^>]*id="filters"[^>]*>', dom)
    assert form is not None
    assert "hidden" not in form[0], "the script that offers the filters did not run"


def test_the_policy_stops_a_foreign_script(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    planted = page("none").replace("</main>", "<script>document.title = 'owned'</script></main>")
    file.write_text(planted, "utf-8")
    dom, console = load(file, tmp_path / "profile")
    assert "<title>owned" not in dom
    assert "Content Security Policy" in console


@pytest.mark.parametrize(
    ("scheme", "width", "evidence"),
    [(LIGHT, 1280, "full"), (DARK, 1280, "redacted"), (LIGHT, 500, "redacted")],
)
def test_axe_finds_nothing(tmp_path: Path, scheme: int, width: int, evidence: Evidence) -> None:
    file = tmp_path / "report.html"
    file.write_text(with_scripts(page(evidence), axe(tmp_path), RUN_AXE), "utf-8")
    dom, console = load(file, tmp_path / "profile", scheme=scheme, width=width)
    assert console == ""
    found = re.search(r'<pre id="axe-result">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None, "axe did not finish"
    result = json.loads(html.unescape(found[1]))
    assert result["dark"] is (scheme == DARK)
    assert result["violations"] == []
    assert result["passes"] > 25
    assert not result["wide"], "the page scrolls sideways"
