"""What is damaged, missing or hostile in a capture is named, and the rest is observed."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fedaudit
from fedaudit.captures.format.capture_facts import Facts, Keywords
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from mlp_capture import mlp, photos, record_mlp, trained


def test_one_bad_client_never_stops_the_others(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    names = list(before)
    good = {c: trained(network, *photos(1, seed=c))[0] for c in range(6)}
    for client, after in good.items():
        record.update(1, client, after, kind="weights")
    nan = {**good[0], names[0]: good[0][names[0]] * float("nan")}
    record.update(1, "nan", nan, kind="weights")
    record.update(1, "shape", {**good[0], names[0]: torch.zeros(2, 2)}, kind="weights")
    record.update(1, "extra", {**good[0], "more.weight": torch.zeros(2)}, kind="weights")
    record.update(1, "missing", {n: good[0][n] for n in names[1:]}, kind="weights")
    whole = {**good[0], names[0]: good[0][names[0]].long()}
    record.update(1, "whole", whole, kind="weights")
    folder = tmp_path / "c" / "round-000001"
    cut = next(folder.glob("update-3-*"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    stored = StoredCapture(tmp_path / "c")
    clients = {c.seen.client for c in observations(stored)}
    assert clients == {"0", "1", "2", "4", "5"}
    told = {Path(p.file).name.split("-")[1]: (p.key, p.reason) for p in stored.problems}
    assert set(told) == {"3", "nan", "shape", "extra", "missing", "whole"}
    assert told["nan"] == (names[0], "it holds NaN or infinity")
    assert told["shape"][0] == told["missing"][0] == told["whole"][0] == names[0]
    assert "[2, 2]" in told["shape"][1]
    assert told["extra"][0] == "more.weight"
    assert "cut off" in told["3"][1]


def test_a_round_without_its_broadcast_is_a_problem_and_others_go_on(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(2, network.state_dict())
    for number in (1, 2):
        record.update(number, "c", trained(network, *photos(1))[0], kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert [c.seen.round for c in observations(stored)] == [2]
    assert "no broadcast was recorded in round 1" in str(stored.problems[0])


ran: list[str] = []


def planted(*, path: str = "") -> nn.Module:
    """What a hostile capture might name: some function of some module."""
    ran.append(path)
    return mlp()


def test_code_that_only_the_capture_names_is_not_run(tmp_path: Path) -> None:
    name = f"{__name__}:planted"
    record = fedaudit.recording(tmp_path / "c", model=name, arguments={"path": "evil"})
    network = mlp()
    record.broadcast(1, network.state_dict())
    record.update(1, "c", trained(network, *photos(1))[0], kind="weights")
    with pytest.raises(UsageError, match="run code that a file chose"):
        list(observations(StoredCapture(tmp_path / "c")))
    assert not ran
    (capture,) = observations(
        StoredCapture(tmp_path / "c"),
        model=ModelSpec("mlp", {"classes": 5, "image_size": 8, "hidden": 32}),
    )
    assert capture.seen.model.factory == "mlp"
    assert not ran
    (capture,) = observations(StoredCapture(tmp_path / "c"), allow_code=True)
    build(capture.seen.model)
    assert ran == ["evil"]  # so the name was one that could have been run


@pytest.mark.parametrize("facts", [{"classes": 10**8}, {"arguments": {"hidden": 10**9}}])
def test_a_network_larger_than_the_broadcast_is_not_built(tmp_path: Path, facts: Keywords) -> None:
    network = mlp()
    record = fedaudit.recording(tmp_path / "c", **facts)
    record.add_facts(Facts(model="mlp"))
    record.broadcast(1, network.state_dict())
    record.update(1, "c", trained(network, *photos(1))[0], kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert "correct" in str(stored.problems[0])


def test_a_broadcast_with_nan_is_named(tmp_path: Path) -> None:
    network = mlp()
    before = {n: v * float("nan") for n, v in network.state_dict().items()}
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    record.update(1, "c", network.state_dict(), kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert stored.problems[0].file.endswith("broadcast.safetensors")
    assert stored.problems[0].key == next(iter(before))
