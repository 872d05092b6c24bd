"""What the documentation lists is what there is."""

import re
from pathlib import Path

import pytest

from fedaudit.registry import lookup, names

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
