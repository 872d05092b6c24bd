"""No network of a study is taught the photos on which it is audited."""

import shutil
from pathlib import Path

import pytest

from fedaudit.core.errors import ConfigError
from fedaudit.files import asset_store
from fedaudit.study.study_file import load_study

STUDY = """
name = "a"
size = 32
data = {name = "folder", path = "people"}
federation = {pretrain_steps = 2, public = "orl", clients = 4, held_out = 2, photos = 5}

[[scenario]]
name = "s"
targets = 2
attacks = ["inverting_gradients"]
"""


def test_files_of_a_public_set_under_other_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for person in range(1, 9):
        folder = tmp_path / "people" / f"somebody {person}"
        shutil.copytree(asset_store.path("orl") / f"s{person}", folder)
    for file in sorted((tmp_path / "people").rglob("*.pgm")):
        file.rename(file.with_name(f"photo {file.name}"))
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    with pytest.raises(ConfigError, match=r"80 of the 80 audited photos are .* of 'orl', .*public"):
        load_study(study)
    study.write_text(STUDY.replace('"orl"', '"openpeople"'))
    load_study(study)
