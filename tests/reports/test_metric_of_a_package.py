"""A metric that a package registers stands in results.json, on the page and in comparisons."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedaudit.cli import cli
from fedaudit.core import registry

STUDY = """
name = "toy"
size = 32
utility = false
[[scenario]]
name = "fresh"
method = "fedsgd"
targets = 2
controls = false
attacks = [{name = "inverting_gradients", steps = 2, polish = 0}]
defenses = ["none", "sign"]
"""
METRIC = """
class Brightness:
    'How far the mean brightness is off, in percent.'

    higher_is_better = False
    unit = "%"
    range = (0.0, 100.0)
    title = "Brightness error"
    digits = 1

    def __call__(self, original, other):
        return 100 * (original - other).flatten(1).mean(1).abs()
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of one module, as it lies where it is installed."""
    site = tmp_path / "site"
    facts = site / "brightness-1.dist-info"
    facts.mkdir(parents=True)
    (site / "brightness.py").write_text(METRIC)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        "[fedaudit.metrics]\nbrightness = brightness:Brightness\n"
    )
    monkeypatch.syspath_prepend(site)
    registry._table.cache_clear()
    yield
    registry._table.cache_clear()


@pytest.mark.usefixtures("registered")
@pytest.mark.slow
def test_a_new_metric_stands_in_results_page_and_compare(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    run = tmp_path / "run"
    arguments = ["run", str(tmp_path / "study.toml"), "--output", str(run), "--workers", "1"]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    results = json.loads((run / "results.json").read_text())
    values = [row["measurement"]["metrics"]["brightness"] for row in results["rows"]]
    assert [value["n"] for value in values] == [2, 2]
    assert [m["title"] for m in results["metrics"]] == [
        "SSIM",
        "LPIPS",
        "PSNR",
        "MSE",
        "Brightness error",
    ]
    page = (run / "report.html").read_text()
    assert "Brightness error ↑<small>%, 0–100 [CI], n</small>" in page
    shown = f"{values[0]['value']:.1f}"
    assert f"<b>{shown}</b>" in page
    table = CliRunner().invoke(cli, ["compare", str(run), "--format", "markdown"]).output
    head, _, first, *_ = table.splitlines()
    names = [cell.strip() for cell in head.split("|")]
    assert first.split("|")[names.index("Brightness error")].strip() == shown
