"""A small, real run of photos in folders that are called like people, made once a process."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torchvision.utils import save_image

from fedaudit.cli import cli
from fedaudit.data.orl import orl
from fedaudit.study import session
from fedaudit.study.executors.in_process import InProcess
from fedaudit.study.scheduler import execute
from fedaudit.study.worker import Outcome

NAMES = (
    "Adelheid Zwirnlein",
    "Benedikt-Öxl",
    "Cosima_Vanderquist",
    "Dagobert.Nussknacker",
    "Eulalia Pfefferkorn",
    "Friedemann Quastel",
    "Guntram Rosskastanie",
    "Hedwig O'Sullivan",
)
STUDY = """
name = "people"
size = 32
data = {name = "folder", path = "faces"}
fmr = 0.1
deployed = "sign"
[federation]
clients = 2
rounds = 1
local_steps = 1
held_out = 2
photos = 3
[[scenario]]
name = "fresh"
method = "fedsgd"
targets = 2
attacks = [{name = "inverting_gradients", steps = 1, polish = 0}]
defenses = ["none", "sign"]
"""


def make_faces(folder: Path, photos: int = 6) -> Path:
    """A folder a person, with photos of the ORL set."""
    faces = orl(size=112)
    people = sorted(set(faces.people))
    for name, person in zip(NAMES, people, strict=False):
        (folder / name).mkdir(parents=True)
        mine = [k for k, shown in enumerate(faces.people) if shown == person][:photos]
        for number, index in enumerate(mine):
            save_image(faces.images[index], folder / name / f"{name}-{number}.png")
    return folder


def command(*words: str | os.PathLike[str]) -> Result:
    """A command line in this process."""
    torch.set_num_threads(1)
    return CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)


def serially(jobs: Sequence[Any], work: Any, _: Any, **settings: Any) -> tuple[Outcome, ...]:
    """`execute` without processes: they take seconds to start."""
    return execute(jobs, work, InProcess(), **settings)


def make_run(folder: Path, more: Sequence[str] = ("--evidence", "full")) -> Path:
    """A finished run folder, `run` in the folder."""
    make_faces(folder / "faces")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    run = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "execute", serially)
        result = command("run", folder / "study.toml", "-o", run, "--workers", "1", *more)
    assert result.exception is None, result.output
    assert result.return_value in {0, 3}, result.output
    return run
