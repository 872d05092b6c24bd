"""What numbers say against what is stated: at import, in inspection, in the notes of an audit."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fedaudit.captures.format.contradictions import counted_back, evened_out
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

MODEL = ("--model", "convnet", "--arguments", '{"width": 4}', "--classes", "10")
FACTS = (*MODEL, "--image-shape", "3x16x16", "--batch-size", "2", "--lr", "0.1")
BACK = "batch-norm counters went backwards by 2: are broadcast and update swapped?"
STEPS = "local_steps = 5 is stated, and batch-norm counters moved by 2"
LIKE = "stated as delta, but it looks like weights: cosine to the broadcast"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights before and after two steps of a client, in the current folder."""
    monkeypatch.chdir(tmp_path)
    network = build(ModelSpec("convnet", {"classes": 10, "width": 4, "image_size": 16}))
    torch.save(network.state_dict(), "global.pt")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for seed in range(2):
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        F.cross_entropy(network(images), torch.tensor([3, 7])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.save(network.state_dict(), "client.pt")


def told(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """All that a command that ends well prints, without its line breaks."""
    assert end(cli, list(command)) == 0
    printed = capsys.readouterr()
    return " ".join(f"{printed.out} {printed.err}".split())


def imported(capsys: pytest.CaptureFixture[str], update: str, broadcast: str, *more: str) -> str:
    command = ("import", update, "-o", "c", "--broadcast", broadcast, *FACTS, *more)
    return told(capsys, *command)


def later(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What inspection prints, and a dry run of an audit."""
    return told(capsys, "inspect", "c"), told(capsys, "audit", "c", "-o", "r", "--dry-run")


def test_files_that_were_swapped_are_told_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert BACK in imported(capsys, "global.pt", "client.pt", "--local-steps", "2")
    inspection, notes = later(capsys)
    assert BACK in inspection
    assert "moved by whole steps" not in inspection
    assert f"note: unusual: round 1: global: {BACK}" in notes


def test_files_in_order_are_not_unusual(capsys: pytest.CaptureFixture[str]) -> None:
    assert "backwards" not in imported(capsys, "client.pt", "global.pt", "--local-steps", "2")
    inspection, notes = later(capsys)
    assert "Unusual" not in inspection
    assert "unusual" not in notes


def test_a_wrong_number_of_steps_is_a_note_of_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    imported(capsys, "client.pt", "global.pt", "--local-steps", "5")
    inspection, notes = later(capsys)
    assert STEPS in inspection
    assert f"note: unusual: round 1: all: {STEPS}" in notes


def test_weights_that_are_stated_as_a_delta_stay_unusual(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert LIKE in imported(capsys, "client.pt", "global.pt", "--kind", "delta")
    assert LIKE in told(capsys, "inspect", "c")
    assert LIKE in told(capsys, "inspect", "c", "--verify")


@pytest.mark.parametrize(
    ("optimizer", "stated", "unusual"),
    [
        ("Adam", (), "no optimizer is stated, which is read as SGD"),
        ("RMSprop", ("--optimizer", "sgd"), "optimizer = 'sgd' is stated"),
        ("Adam", ("--optimizer", "adam"), ""),
        ("SGD", (), ""),
    ],
)
def test_steps_that_are_none_of_sgd_are_a_note_of_the_audit(
    capsys: pytest.CaptureFixture[str], optimizer: str, stated: tuple[str, ...], unusual: str
) -> None:
    network = build(ModelSpec("convnet", {"classes": 10, "width": 16, "image_size": 16}))
    torch.save(network.state_dict(), "before.pt")
    steps = getattr(torch.optim, optimizer)(network.parameters(), lr=1e-3)
    for seed in range(2):
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        steps.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), torch.tensor([3, 7])))
        steps.step()
    torch.save(network.state_dict(), "after.pt")
    wide = [fact.replace("4}", "16}") for fact in FACTS]
    command = ("import", "after.pt", "-o", "c", "--broadcast", "before.pt", *wide)
    told(capsys, *command, "--local-steps", "2", *stated)
    for said in later(capsys):
        assert ("has one size in all layers" in said) is bool(unusual)
        assert unusual in said


@pytest.mark.parametrize(
    ("counters", "back"),
    [
        ((-2.0, -2.0), "by 2:"),
        ((-2.0, -4.0, 1.0), "by 2 to 4:"),
        ((-2.4, -2.1), ""),  # noise, or an average
        ((3.0, 0.0), ""),
        ((), ""),
    ],
)
def test_only_whole_counters_went_backwards(counters: tuple[float, ...], back: str) -> None:
    said = counted_back(counters)
    assert (f"backwards {back}" in said) if back else not said


def changed(optimizer: str, steps: int, **settings: float) -> dict[str, Tensor]:
    """What some steps on photos of noise change in a small MobileNet, in training mode."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    steps_of = getattr(torch.optim, optimizer)(model.parameters(), **settings)
    for _ in range(steps):
        steps_of.zero_grad()
        loss = F.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.randint(10, (4,)))
        torch.autograd.backward(loss)
        steps_of.step()
    return {name: (p - before[name]).detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("steps", [1, 4])
def test_steps_that_divide_by_size_are_told_from_those_of_sgd(optimizer: str, steps: int) -> None:
    assert evened_out(changed(optimizer, steps, lr=1e-3))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_of_sgd_are_uneven(steps: int, momentum: float) -> None:
    assert not evened_out(changed("SGD", steps, lr=0.05, momentum=momentum))


def test_noise_and_signs_are_not_taken_for_steps() -> None:
    shapes = {name: value.shape for name, value in changed("SGD", 1, lr=0.05).items()}
    drawn = {name: torch.randn(shape) for name, shape in shapes.items()}
    assert not evened_out(drawn)
    assert not evened_out({name: value.sign() for name, value in drawn.items()})
    assert not evened_out({"bias": torch.ones(10)})


@pytest.mark.parametrize(
    ("optimizer", "stated", "times"),
    [("Adam", (), 1), ("Adam", ("--optimizer", "adam"), 0), ("SGD", (), 0)],
)
def test_an_import_tells_once_of_steps_that_are_none_of_sgd(
    capsys: pytest.CaptureFixture[str], optimizer: str, stated: tuple[str, ...], times: int
) -> None:
    change = changed(optimizer, 2, lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    before = {name: torch.randn(t.shape, generator=generator) for name, t in change.items()}
    torch.save(before, "before.pt")
    for client in "ab":
        torch.save({name: before[name] + t for name, t in change.items()}, f"{client}.pt")
    command = ("import", "a.pt", "b.pt", "-o", "c", "--broadcast", "before.pt")
    said = told(capsys, *command, "--kind", "weights", *stated)
    assert said.count("has one size in all layers") == times
    assert said.count("import into a new folder with --optimizer adam") == times


def layers_of(*sizes: float) -> dict[str, Tensor]:
    """Gradients of layers of these sizes."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(40, 50, generator=generator) for _ in sizes]
    return {str(n): size * one for n, (size, one) in enumerate(zip(sizes, drawn, strict=True))}


def test_steps_on_gradients_near_the_epsilon_differ_by_layer_and_are_told() -> None:
    sent = layers_of(1e-8, 3e-8, 1e-6, 1e-5, 1e-4, 1e-4)
    steps = {name: 1e-3 * g / (g.abs() + 1e-8) for name, g in sent.items()}
    sizes = [float(step.square().mean().sqrt()) for step in steps.values()]
    assert max(sizes) > 1.5 * min(sizes)
    assert evened_out(steps)
    assert evened_out({name: step * (1 + int(name) / 5) for name, step in steps.items()})
    assert not evened_out({name: step * 9 ** int(name) for name, step in steps.items()})


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("times", [0.2, 1, 3])
def test_quantized_changes_are_not_taken_for_steps(levels: int, times: float) -> None:
    sent = layers_of(*(1.0 + times * n for n in range(5)))
    units = {name: g.abs().max() / levels for name, g in sent.items()}
    rounded = {name: units[name] * (g / units[name]).sign().ceil() for name, g in sent.items()}
    assert not evened_out(rounded)
    whole = {name: units[name] * (2 * g / units[name]).round() for name, g in sent.items()}
    assert not evened_out(whole)
    broadcast = 0.1 * torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    assert not evened_out({name: broadcast + g - broadcast for name, g in whole.items()})
