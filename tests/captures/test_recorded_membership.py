"""Who is in the data of a recorded run, by one command."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from torchvision.transforms.functional import to_pil_image

import fedaudit
from fedaudit.attacks.membership.client_scores import SHADOWED
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


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "fewest"), [(SHADOWED[0], 9), (SHADOWED[1], 0)])
def test_shadow_clients_tell_members_of_a_recorded_run(
    folder: Path, simulation: Simulation, tmp_path: Path, attack: str, fewest: int, capsys: Any
) -> None:
    trained = simulation.federation.training
    facts: dict[str, Any] = {"lr": trained.lr, "momentum": trained.momentum}
    facts |= {"local_steps": trained.steps, "batch_size": trained.batch_size}
    copy = tmp_path / "capture"
    shutil.copytree(folder / "capture", copy)
    fedaudit.recording(copy, **facts)

    def judge(candidates: str) -> list[dict[str, Any]]:
        asked = ["--candidates", str(folder / candidates), "--outsiders", str(folder / "outside")]
        end(cli, ["members", str(copy), *asked, "--attack", attack, "--json"])
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    asked = judge("members")
    # Of people in nobody's data the mean of twelve lies above a half, give or take 0.09.
    assert sum(one["p_value"] for one in asked) / 12 < 0.25
    told = [one for one in asked if one["q_value"] <= 0.05]
    assert len(told) >= fewest
    split = simulation.split
    right = [one for one in told if one["person"] in split.clients[int(one["client"][-1])]]
    assert len(right) >= len(told) - 1
    others = judge("others")
    assert all(one["q_value"] > 0.05 for one in others)
    assert sum(one["p_value"] for one in others) / 4 > 0.3


def test_shadow_clients_are_refused_where_nobody_knows_how_clients_trained(
    folder: Path, capsys: Any
) -> None:
    assert members(folder, "members", "outside", "--attack", SHADOWED[0]) == 2
    refusal = capsys.readouterr().err
    assert "lr" in refusal
    assert "local_steps" in refusal
    assert "batch_size" in refusal


def test_half_of_the_outsiders_train_shadow_clients(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    for person in sorted((folder / "outside").iterdir())[:37]:
        shutil.copytree(person, tmp_path / person.name)
    assert members(folder, "others", str(tmp_path), "--attack", SHADOWED[1]) == 2
    assert "holds 37 people, and with fewer than 38" in capsys.readouterr().err
