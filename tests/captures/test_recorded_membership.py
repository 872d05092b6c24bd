"""Who is in the data of a recorded run, by one command."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torchvision.transforms.functional import to_pil_image

import fedaudit
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.client import ClientReturn
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation

sys.path.insert(0, str(Path(__file__).parents[1] / "study"))
from pattern_federation import federation


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return federation(people=72)


@pytest.fixture(scope="module")
def folder(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of all rounds, and photos: of members those that did not train."""
    root = tmp_path_factory.mktemp("recorded")
    spec = simulation.spec(0)
    record = fedaudit.recording(
        root / "capture",
        model="mlp",
        arguments=dict(spec.arguments),
        classes=spec.arguments["classes"],
        image_shape=(3, 16, 16),
    )
    state = simulation.fresh()
    for number in range(1, 4):
        record.broadcast(number, dict(state.server))
        returns: dict[int, ClientReturn] = {}
        state, _ = simulation.train(state, range(number, number + 1), account=returns.__setitem__)
        for client, returned in returns.items():
            update = next(sent for sent in returned.shared if isinstance(sent, Update))
            record.update(number, f"client {client}", dict(update.tensors), kind=update.kind)
    split, faces = simulation.split, simulation.faces
    held = split.held_out
    for name, people in (("members", split.people), ("others", held[:4]), ("outside", held[4:])):
        for person in people:
            (root / name / person).mkdir(parents=True)
            photos = [k for k, one in enumerate(faces.people) if one == person]
            for photo in photos[2:]:
                to_pil_image(faces.images[photo]).save(root / name / person / f"{photo}.png")
    return root


def members(folder: Path, candidates: str, outsiders: str = "outside", *more: str) -> int:
    asked = ["--candidates", str(folder / candidates), "--outsiders", str(folder / outsiders)]
    return end(cli, ["members", str(folder / "capture"), *asked, *more])


def test_people_are_told_by_photos_that_nobody_trained_on(
    folder: Path, simulation: Simulation, capsys: Any
) -> None:
    assert members(folder, "members", "outside", "--json", "--attack", "loss") == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 12
    first = [one for one in found if one["p_value"] <= 1 / 57 + 1e-9]
    assert len(first) >= 9
    split = simulation.split
    right = [one for one in first if one["person"] in split.clients[int(one["client"][-1])]]
    assert len(right) >= len(first) - 1


def test_who_is_in_nobodys_data_is_not_told(folder: Path, capsys: Any) -> None:
    assert members(folder, "others") == 3
    out = capsys.readouterr().out
    assert "closest client" in out
    assert "0 of 4 are told to be in the data, by FedMIA" in out


def test_too_few_outsiders_are_refused(folder: Path, capsys: Any) -> None:
    assert members(folder, "members", "others") == 2
    assert "fewer than 19 no p-value can fall to 5 %" in capsys.readouterr().err
