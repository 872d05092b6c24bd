"""What the documentation lists is what there is."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import fedaudit
from fedaudit.captures.format.capture_facts import DpClaim, Facts
from fedaudit.cli import cli
from fedaudit.core.registry import lookup, names

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_every_attack_is_in_the_table_of_attacks() -> None:
    rows = [line for line in (DOCS / "attacks.md").read_text().splitlines() if "|" in line[:1]]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == set(names("attacks"))


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_papers_in_the_table_are_those_of_the_docstrings() -> None:
    for line in (DOCS / "attacks.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        _, attacks, _, papers, *_ = line.split("|")
        documented = " ".join(lookup("attacks", n).__doc__ for n in re.findall(r"`(\w+)`", attacks))
        authors = re.findall(r"([A-Z]\w+) (?:et al\.|&)", papers)
        assert all(author in documented for author in authors), line


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_the_page_on_recorded_runs_can_be_followed() -> None:
    page = (DOCS / "recorded_runs.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    for text in (text for kind, text in blocks if kind == "python"):
        ast.parse(text.replace(", …", "").replace("…", "..."))
    told = " ".join(text for kind, text in blocks if kind == "console").replace("\\\n", "")
    asked = [line.split() for line in told.splitlines() if line.strip().startswith("fedaudit ")]
    assert {words[1] for words in asked} == {"import", "audit"}
    for _, name, *words in asked:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, name


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_facts_on_the_page_are_facts() -> None:
    page = (DOCS / "recorded_runs.md").read_text()
    calls = re.findall(r"fedaudit\.(?:recording|tap)\((.*?)\)\n", page, re.DOTALL)
    named = {name for call in calls for name in re.findall(r"\b(\w+)=", call)}
    assert named <= {field.name for kind in (Facts, DpClaim) for field in fields(kind)}
    assert {"mean", "image_shape", "local_steps"} <= named


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_every_defense_is_in_the_table_of_defenses_with_its_papers_and_guarantee() -> None:
    rows = [r for r in (DOCS / "defenses.md").read_text().splitlines() if r.startswith("| `")]
    named = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows]
    assert sorted(name for some in named for name in some) == sorted(names("defenses"))
    for row, some in zip(rows, named, strict=True):
        _, _, _, papers, guarantee, *_ = row.split("|")
        documented = " ".join(lookup("defenses", name).__doc__ for name in some)
        authors = re.findall(r"([A-Z]\w+) (?:et al\.|&)", papers)
        assert all(author in documented for author in authors), row
        assert ("heuristic" in documented) == (guarantee.strip() == "heuristic"), row


EXAMPLES = DOCS.parent / "examples"
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    reference = (tmp_path / "reference" / "attacks.html").read_text()
    assert all(f'id="{name.replace("_", "-")}"' in reference for name in names("attacks"))
    assert "fedaudit.attack" in (tmp_path / "reference" / "library.html").read_text()


def test_every_page_stands_in_the_table_of_contents() -> None:
    """The build says the same; this takes no time."""
    listed = re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in DOCS.rglob("*.md")}
    assert pages - {"index"} == set(listed)


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_studies_and_code_on_the_pages_can_be_read() -> None:
    for page in (DOCS / "tutorials").glob("*.md"):
        for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            ast.parse(textwrap.dedent(text))


def test_the_attack_of_the_tutorial_works() -> None:
    page = (DOCS / "tutorials" / "add_an_attack.md").read_text()
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    update = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    rebuilt = fedaudit.attack(model, update, names["MeanFace"](), image_shape=(3, 2, 2))
    assert bool((rebuilt.images == 0.5).all())
    assert rebuilt.adaptive == "no"


def test_the_example_attack_brings_the_photo_back() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "attack_one_update.py")],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"label 3, mean squared error 0\.00\d+\n", ran.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "least"), [("torchvision:resnet18", 0.65), ("timm:vit_tiny_patch16_224", 0.98)]
)
def test_a_librarys_network_gives_its_photo_back_without_any_setting(
    network: str, least: float
) -> None:
    pytest.importorskip(network.partition(":")[0])
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "attack_your_network.py"), network],
        env={**os.environ, **QUIET, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    result = re.fullmatch(r"label 3, SSIM (\d\.\d+) in \d+ CPU s\n", ran.stdout)
    assert result is not None
    assert float(result[1]) >= least


@pytest.mark.slow
def test_the_notebook_runs_and_is_kept_without_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = EXAMPLES / "attack_one_update.ipynb"
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    for name, value in {**QUIET, "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    probe = (
        "import nbformat, nbclient, sys; from pathlib import Path;"
        f"book = nbformat.read({str(path)!r}, 4);"
        "nbclient.NotebookClient(book, timeout=120, kernel_name='python3').execute();"
        "print(sum('image/png' in one.get('data', {}) for cell in book.cells"
        " for one in cell.get('outputs', ())))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == "2"  # pictures


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not installed")
def test_the_page_on_claims_says_of_every_defense_and_method_what_it_does_to_them() -> None:
    page = (DOCS / "explanation" / "privacy_claims.md").read_text()
    tables: dict[str, dict[str, str]] = {"defense": {}, "method": {}}
    for kind, rows in tables.items():
        table = page.partition(f"| {kind} |")[2].partition("\n\n")[0]
        for line in table.splitlines()[2:]:
            _, first, *_, last, _ = line.split("|")
            rows.update(dict.fromkeys(re.findall(r"`(\w+)`", first), last))
    assert set(tables["defense"]) == set(names("defenses"))
    assert set(tables["method"]) == set(names("methods"))
    for name, effect in tables["defense"].items():
        assert lookup("defenses", name).keeps_claims == ("broken" not in effect), name
