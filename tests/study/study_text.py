"""Studies as text and as tables, for the tests of reading them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedaudit.core.scenario import Study
from fedaudit.study.study_file import load_study

MINIMAL: Mapping[str, Any] = {"name": "a", "scenario": [{"name": "fresh"}]}


def load(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)
