"""What import says of a model, its classes, images and optimizer, before anything is recorded."""

from pathlib import Path

import pytest
import torch
from torch import nn

import fedaudit
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.stated_training import optimizer_note
from fedaudit.cli import cli
from fedaudit.cli.ending import end

SOURCE = """
from torch import nn


def small(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Sigmoid(), nn.Flatten(),
                                  nn.Linear(4 * 8 * 8, 12))


def other(): return nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.Sigmoid(), nn.Conv2d(8, 4, 3, 2, 1),
                                  nn.Flatten(), nn.Linear(4 * 4 * 4, 12))
"""
IMPORT = ("import", "client.pt", "-o", "c", "--broadcast", "global.pt", "--lr", "0.1")
SMALL = ("--model", "stated_net:small", "--image-shape", "3x16x16")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with a factory of its own, and what a client made of it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("stated_net.py").write_text(SOURCE)
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, 2, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 8 * 8, 12))
    before = nn.Sequential(*layers).state_dict()
    after = {n: t + 1e-3 * torch.randn_like(t) for n, t in before.items()}
    torch.save(before, "global.pt")
    torch.save(after, "client.pt")
    torch.save({f"net.{n}": t for n, t in before.items()}, "wrapped.pt")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ((*SMALL, "--classes", "10"), "classes = 10 is stated, and the model gives 12 scores"),
        (("--model", "stated_net:other"), "the model does not fit what the server sent"),
        (("--model", "stated_net:small", "--image-shape", "3x32x32"), "does not take images"),
        ((*SMALL[:2], "--image-shape", "16x16x3"), "Channels come first: 3x16x16"),
    ],
)
def test_a_fact_that_the_model_contradicts_is_refused_and_nothing_recorded(
    capsys: pytest.CaptureFixture[str], facts: tuple[str, ...], words: str
) -> None:
    assert end(cli, [*IMPORT, *facts]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not Path("c").exists()


def test_what_may_be_stated_later_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(cli, [*IMPORT, "--model", "convnet", "--classes", "12"]) == 0  # for some image_shape
    assert "note: the model does not fit what the server sent" in capsys.readouterr().err


def test_a_fact_that_fits_is_taken_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(cli, [*IMPORT, *SMALL, "--classes", "12", "--optimizer", "sgd"]) == 0
    assert "note:" not in capsys.readouterr().err
    assert StoredCapture("c").facts.classes == 12


def test_names_of_a_wrapper_are_a_note_for_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("import", "wrapped.pt", "-o", "c", "--broadcast", "wrapped.pt", *SMALL)
    assert end(cli, command) == 0
    assert "--rename" in capsys.readouterr().err


def test_an_audit_refuses_classes_that_the_model_contradicts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end(cli, [*IMPORT, "--image-shape", "3x16x16", "--local-steps", "1"]) == 0
    fedaudit.recording("c", classes=10, batch_size=1)
    command = ("audit", "c", "-o", "r", "--dry-run", "--model", "stated_net:small")
    assert end(cli, command) == 2
    assert "classes = 10 is stated, and the model gives 12 scores" in capsys.readouterr().err


def test_an_optimizer_that_is_not_known_is_kept_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end(cli, [*IMPORT, "--optimizer", "sdg"]) == 0
    assert "optimizer = 'sdg' is not known: did you mean 'sgd'?" in capsys.readouterr().err
    assert StoredCapture("c").facts.optimizer == "sdg"


@pytest.mark.parametrize(
    ("name", "words"),
    [("SGD", ""), ("adamw", ""), ("rmsprop", "is not replayed"), ("our-own-123", "is not known")],
)
def test_optimizers_are_known_by_name(name: str, words: str) -> None:
    note = optimizer_note(name)
    assert (words in note) if words else not note
