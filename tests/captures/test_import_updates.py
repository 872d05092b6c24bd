"""`fedaudit import` and `fedaudit inspect`, as a user gives them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.record.guessed_kind import guess
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.observation import ModelSpec
from fedaudit.core.shared import Update
from fedaudit.models.build_network import build

MODEL = ("--model", "convnet", "--arguments", '{"width": 4}', "--classes", "10")
FACTS = (*MODEL, "--image-shape", "3x16x16", "--local-steps", "1", "--batch-size", "2")
LR = 0.1


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """One step of a client in every form, in the current folder; the gradient is returned."""
    monkeypatch.chdir(tmp_path)
    network = build(ModelSpec("convnet", {"classes": 10, "width": 4, "image_size": 16}))
    before = {n: v.clone() for n, v in network.state_dict().items()}
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(network(images), torch.tensor([3, 7])).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(network.parameters(), lr=LR).step()
    after = network.state_dict()
    gradient = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    delta = {n: after[n] - before[n] for n in before}
    save_file(before, "global.safetensors")
    torch.save(after, "weights.pt")
    np.savez("weights_list.npz", *[v.numpy() for v in after.values()])
    np.savez("delta.npz", **{n: v.numpy() for n, v in delta.items()})
    torch.save(list(gradient.values()), "gradient_list.pt")
    save_file({n: -v for n, v in delta.items() if n in gradient}, "negated.safetensors")
    save_file({f"module.{n}": v for n, v in after.items()}, "wrapped.safetensors")
    return gradient


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.mark.parametrize(
    ("file", "options", "kind", "told"),
    [
        ("weights.pt", (), "delta", "weights: cosine to the broadcast"),
        ("weights_list.npz", (), "delta", "weights: cosine"),
        ("wrapped.safetensors", (), "delta", "weights: cosine"),
        ("delta.npz", (), "delta", "is a buffer, and buffers have no gradient"),
        ("gradient_list.pt", (), "gradient", "uphill: 2 of 10 entries of 'head.bias' are below 0"),
        ("negated.safetensors", ("--kind", "delta"), "delta", "it is the negative of a delta"),
        ("negated.safetensors", ("--kind", "delta", "--sign", "-1"), "delta", "uphill"),
    ],
)
def test_every_form_is_imported_as_what_it_is(
    files: dict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    file: str,
    options: tuple[str, ...],
    kind: str,
    told: str,
) -> None:
    command = ["import", file, "-o", "c", "--broadcast", "global.safetensors", *FACTS]
    assert end(cli, [*command, "--lr", str(LR), *options]) == 0
    assert told in capsys.readouterr().err
    stored = StoredCapture("c")
    (capture,) = observations(stored)
    assert not stored.problems
    (update,) = (s for s in capture.seen.shared if isinstance(s, Update))
    assert update.kind == kind
    scale = 1 if kind == "gradient" else -LR
    assert torch.allclose(flat(dict(update.tensors)), scale * flat(files), atol=1e-6)
    assert capture.seen.client == Path(file).stem
    assert capture.seen.training is not None


def test_what_does_not_show_must_be_stated(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    headless = {n: v for n, v in files.items() if n != "head.bias"}
    save_file(headless, "headless.safetensors")
    command = ["import", "headless.safetensors", "-o", "c", "--broadcast", "global.safetensors"]
    assert end(cli, [*command, "--partial"]) == 2
    assert "--kind delta or --kind gradient" in capsys.readouterr().err
    assert end(cli, [*command, "--kind", "gradient"]) == 2
    assert "'head.bias': it is missing" in capsys.readouterr().err
    assert end(cli, [*command, "--kind", "gradient", "--partial"]) == 0
    assert "taken as +1" in capsys.readouterr().err


def test_one_bad_file_does_not_stop_the_others(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torch.load("weights.pt", weights_only=True)
    torch.save(nn.Linear(2, 2), "module.pt")
    torch.save({**weights, "head.bias": torch.full((10,), float("inf"))}, "infinite.pt")
    torch.save({**weights, "head.bias": torch.zeros(11)}, "classes.pt")
    torch.save({**weights, "extra": torch.zeros(2)}, "extra.pt")
    Path("cut.pt").write_bytes(Path("weights.pt").read_bytes()[:-50])
    bad = ["module.pt", "infinite.pt", "classes.pt", "extra.pt", "cut.pt", "absent.pt"]
    command = ["import", *bad[:3], "weights.pt", *bad[3:], "-o", "c"]
    assert end(cli, [*command, "--broadcast", "global.safetensors"]) == 1
    told = capsys.readouterr()
    assert "1 of 7 files imported" in told.out
    for name in bad:
        assert f"left out: {name}" in told.err
    assert "left out: classes.pt: 'head.bias': its shape is [11]" in told.err
    assert [m.message.client for m in StoredCapture("c").messages(1)] == ["weights"]
    assert end(cli, ["import", *bad, "-o", "c"]) == 2


def test_a_capture_grows_and_contradictions_are_refused(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["import", "weights.pt", "-o", "c"]
    assert end(cli, command) == 2
    assert "--broadcast FILE" in capsys.readouterr().err
    assert end(cli, [*command, "--broadcast", "global.safetensors", "--lr", "0.1"]) == 0
    assert end(cli, [*command, "--client", "a", *MODEL]) == 0
    assert end(cli, [*command, "--lr", "0.2"]) == 2
    assert "lr = 0.1" in capsys.readouterr().err
    assert end(cli, [*command, "--client", "a", "--client", "b"]) == 2
    facts = StoredCapture("c").facts
    assert (facts.lr, facts.model, facts.classes) == (0.1, "convnet", 10)


def test_a_bomb_is_held_to_the_size_of_the_broadcast(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("large.npz", **{"head.bias": np.zeros(10_000_000)})  # type: ignore[arg-type]
    command = ["import", "large.npz", "-o", "c", "--broadcast", "global.safetensors"]
    assert end(cli, command) == 2
    told = capsys.readouterr().err
    assert "are read, which follows from the" in told
    assert "numbers of the broadcast. Is this the update of another network?" in told


def test_inspect_shows_what_is_there_and_what_is_missing(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["import", "weights.pt", "-o", "c", "--broadcast", "global.safetensors"]
    assert end(cli, [*command, "--examples", "2"]) == 0
    capsys.readouterr()
    assert end(cli, ["inspect", "c"]) == 0
    text = capsys.readouterr().out
    assert "1 round, 1 client, 1 update" in text
    assert "Not known: model, image_shape" in text
    assert "buffers in clear" in text
    assert end(cli, ["inspect", "c", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    fits = {fit["name"]: fit for fit in found["attacks"]}
    assert not any(fit["applies"] for fit in fits.values())
    assert "state image_shape, classes" in " ".join(fits["analytic"]["missing"])
    assert end(cli, ["import", "weights.pt", "-o", "c", *FACTS, "--lr", "0.1"]) == 0
    capsys.readouterr()
    assert end(cli, ["inspect", "c", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    fits = {fit["name"]: fit for fit in found["attacks"]}
    assert fits["inverting_gradients"]["applies"]
    assert not fits["inverting_gradients"]["faces"]
    assert fits["gan_inversion"]["faces"]
    assert not fits["imprint"]["applies"]  # a recording is no malicious server
    assert found["rounds"][0]["kinds"] == {"weights": 2}  # its own file, with and without examples


def test_inspect_fails_where_files_cannot_be_used(
    files: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(cli, ["inspect", "c"]) == 2
    command = ["import", "weights.pt", "-o", "c", "--broadcast", "global.safetensors"]
    assert end(cli, command) == 0
    (path,) = Path("c/round-000001").glob("update-*")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    capsys.readouterr()
    assert end(cli, ["inspect", "c"]) == 0
    assert "1 of 1 update as measured when recorded" in capsys.readouterr().out
    assert end(cli, ["inspect", "c", "--verify"]) == 1
    assert "not those that were recorded" in capsys.readouterr().out
    path.write_bytes(content[:-1])
    assert end(cli, ["inspect", "c"]) == 1
    assert "Cannot be used:" in capsys.readouterr().out


def test_the_schema_of_a_capture_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(cli, ["schema", "capture"]) == 0
    assert "Message" in json.loads(capsys.readouterr().out)["$defs"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch", [1, 4])
def test_the_direction_is_right_or_left_open(seed: int, batch: int) -> None:
    """Over untrained and trained networks; a head without a bias leaves it open."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 20))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    found = []
    for step in range(30):
        images, labels = torch.rand(batch, 3, 4, 4), torch.randint(20, (batch,))
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        gradient = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        state = {n: v.clone() for n, v in network.state_dict().items()}
        if step % 10 == 0:
            up = guess(gradient, state)
            down = guess({n: -v for n, v in gradient.items()}, state)
            assert (up.kind, down.kind) in {("gradient", "delta"), (None, None)}
            found.append(up.kind)
            del gradient["3.bias"]
            assert guess(gradient, state).kind is None
        optimizer.step()
    assert "gradient" in found


def test_a_model_in_the_current_folder_is_found(
    files: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by `fedaudit audit`: the command line names it, and trusts its code."""
    make = "def make():\n    return convnet(classes=10, image_size=16, width=4)\n"
    Path("my_convnet.py").write_text(f"from fedaudit.models.zoo import convnet\n\n{make}")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    command = ["import", "weights.pt", "-o", "c", "--broadcast", "global.safetensors"]
    assert end(cli, [*command, "--model", "my_convnet:make"]) == 0, capsys.readouterr().err
    sys.modules.pop("my_convnet", None)
