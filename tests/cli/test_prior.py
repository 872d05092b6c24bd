"""`fedaudit prior`, with trainings of a few steps."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fedaudit.cli import cli, console
from fedaudit.cli.ending import end
from fedaudit.priors import training_session

Command = Callable[..., int]
SMALL = ("prior", "train", "--data", "lfw_subset", "--size", "32")


@pytest.fixture
def fedaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDAUDIT_DEBUG", raising=False)

    def command(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fedaudit", *args])
        return end(cli, args)

    return command


def size(name: str) -> tuple[int, int]:
    with Image.open(name) as picture:
        return picture.size


@pytest.mark.parametrize("name", ["train", "show", "check"])
def test_help_has_examples(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert fedaudit("prior", name, "--help") == 0
    assert f"Examples:\n    fedaudit prior {name}" in capsys.readouterr().out
    assert fedaudit("prior", "--help") == 0
    assert f"\n  {name} " in capsys.readouterr().out


@pytest.mark.slow
def test_train_show_check(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "EVERY", 0.0)
    assert fedaudit(*SMALL, "--steps", "2") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("prior: prior.safetensors (2 steps; photos kept apart: ")
    assert "90 photos of lfw_subset, 10 kept apart\n" in captured.err
    assert "50%  step 2, error 0." in captured.err
    assert fedaudit(*SMALL, "--steps", "3", "--resume", "--quiet") == 0
    captured = capsys.readouterr()
    assert "(3 steps;" in captured.out
    assert "step 3" not in captured.err
    assert Path("prior-samples/step-000003.png").is_file()

    assert fedaudit("prior", "show", "prior.safetensors", "-o", "faces.png", "--count", "12") == 0
    assert size("faces.png") == (2 * (10 * 34 + 2), 2 * (2 * 34 + 2))
    assert capsys.readouterr().out == "12 faces: faces.png\n"

    check = ("prior", "check", "prior.safetensors", "--data", "lfw_subset", "--most", "3")
    assert fedaudit(*check, "--size", "16", "-o", "pairs.png") == 0
    out = capsys.readouterr().out
    assert "latent      [100], 100 numbers\n" in out
    assert "images      [3, 32, 32], 0." in out
    assert "stages      1 [256, 4, 4], 2 [128, 8, 8], 3 [64, 16, 16]\n" in out
    assert (
        "on 90 photos of 'lfw_subset', 10 kept apart, 0 faces of face_gan; from random, 3 steps"
        in out
    )
    assert "expresses   3 photos at 16 pixels with a PSNR of " in out
    assert size("pairs.png") == (2 * (3 * 18 + 2), 2 * (2 * 18 + 2))


def test_bar(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    assert fedaudit(*SMALL, "--steps", "2") == 0
    assert "training" in capsys.readouterr().err


def test_interrupted(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_session, "train", interrupted)
    assert fedaudit(*SMALL) == 130
    assert f"  fedaudit {' '.join(SMALL)} --resume\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("train",), "give either FOLDER or --data"),
        (("train", "photos", "--data", "orl"), "give either FOLDER or --data"),
        (("train", "photos"), "the photo folder photos does not exist"),
        (("train", "--data", "orll"), "did you mean 'orl'"),
        (("train", "--data", "lfw_subset", "-o", "x.pt"), "must end in .safetensors"),
        (("train", "--data", "lfw_subset", "-o", "no/x.safetensors", "--resume"), "no checkpoint"),
        (("train", "--data", "lfw_subset", "--from", "stylegan"), "neither 'face_gan'"),
        (("train", "--data", "orl", "--device", "abacus"), "cannot compute on 'abacus'"),
        (("check", "face_gan", "--apart", "s1"), "--apart need --photos"),
        (("show", "absent.safetensors"), "no prior file absent.safetensors"),
        (("check", "absent.ts"), "no generator file absent.ts"),
        (("check", "face_gan", "--data", "orl", "--photos", "x"), "not both"),
        (("check", "face_gan", "-o", "x.png"), "--output and --apart need --photos or --data"),
        (("chekc",), "did you mean 'check'"),
    ],
)
def test_usage_errors(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str
) -> None:
    assert fedaudit("prior", *args) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
