"""A recorded run on real faces: clients that train one step on a photo, and audits of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.audit.recorded_source import RecordedSource
from fedaudit.core.observation import ModelSpec
from fedaudit.core.recorded_run import RecordedRun
from fedaudit.core.scenario import Choice, Study
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build
from fedaudit.reports.build import build_report
from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.results import Results
from fedaudit.study.session import open_run
from fedaudit.study.work import Work

CLIENTS, PEOPLE, LR = 7, 26, 0.1
ATTACKS = [Choice("analytic")]


def of_run(study: Study) -> RecordedRun:
    assert study.recording is not None
    return study.recording


def recorded(study: Study) -> RecordedSource:
    return RecordedSource(study, of_run(study))


def save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).save(path)


def people(faces: FaceSet) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, person in enumerate(faces.people):
        found.setdefault(person, []).append(index)
    return dict(list(found.items())[:PEOPLE])


def record(folder: Path, faces: FaceSet, names: Mapping[int, str], rounds: int = 1) -> Path:
    """Each client trains one step on one photo of a person of its own."""
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 64}), seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = list(people(faces).values())
    with fedaudit.recording(
        folder,
        model="mlp",
        arguments={"hidden": 64},
        classes=40,
        image_shape=(3, 32, 32),
        lr=LR,
        local_steps=1,
        batch_size=1,
    ) as run:
        for number in range(1, rounds + 1):
            run.broadcast(number, before)
            for client, name in names.items():
                network.load_state_dict(before)
                network.zero_grad()
                image = faces.images[own[client][number - 1]][None]
                F.cross_entropy(network(image), torch.tensor([client])).backward()  # type: ignore[no-untyped-call]
                torch.optim.SGD(network.parameters(), lr=LR).step()
                run.update(number, name, network.state_dict(), kind="weights", examples=1)
    return folder


NAMES = {k: f"client-{k}" for k in range(CLIENTS)}


def run(study: Study, path: Path, *, jobs: int | None = None, evidence: Any = None) -> Results:
    with open_run(path, study, evidence=evidence) as opened:
        for job in opened.todo[:jobs]:
            Work(study, opened.folder, opened.manifest.evidence)(job)
    return build_report(path, "redacted")


def requested(path: Path, **more: Any) -> Study:
    return study_of(Request(**{"path": path, "attacks": ATTACKS, "fmr": 1e-2, **more})).study


def only(results: Results) -> Row:
    (row,) = results.rows
    return row


def measured(row: Row) -> Measurement:
    assert row.measurement is not None
    return row.measurement


def audit_jobs(study: Study) -> list[Any]:
    from fedaudit.study.jobs import expand

    return list(expand(study))


def control_of(results: Results, name: str) -> Any:
    return next(c for c in results.controls if c.name.startswith(name))
