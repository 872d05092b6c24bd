"""What the documentation lists is what there is."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

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
