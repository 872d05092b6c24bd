"""`fedaudit scan` on files, kind and hostile."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build, parameters_of


def scan(*args: object) -> int:
    return end(cli, ["scan", *map(str, args)])


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    save_file(model(), tmp_path / "honest.safetensors")
    return tmp_path / "honest.safetensors"


@pytest.fixture
def fishy(tmp_path: Path) -> Path:
    tensors = model()
    tensors["head.bias"][7] = -30.0
    save_file(tensors, tmp_path / "fishy.safetensors")
    return tmp_path / "fishy.safetensors"


def model() -> dict[str, torch.Tensor]:
    return parameters_of(build(ModelSpec("small_cnn", {"classes": 40, "image_size": 32})))


def test_an_honest_model_passes(honest: Path, capsys: Any) -> None:
    assert scan(honest) == 0
    out = capsys.readouterr().out
    assert "nothing suspicious" in out
    assert "--reference" in out
    assert scan(honest, "--reference", honest) == 0
    assert "--reference" not in capsys.readouterr().out


def test_a_tampered_one_fails(fishy: Path, honest: Path, capsys: Any) -> None:
    assert scan(fishy) == 1
    out = capsys.readouterr().out
    assert "odd_bias: head.bias: bias 7" in out
    assert "1 suspicious (odd_bias)" in out
    assert scan(fishy, "--reference", honest) == 1


def test_json(fishy: Path, honest: Path, capsys: Any) -> None:
    assert scan(fishy, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["suspicious"] is True
    (finding,) = told["findings"]
    assert finding["check"] == "odd_bias"
    assert finding["parameter"] == "head.bias"
    assert finding["evidence"]["value"] == -30.0
    assert scan(honest, "--json", "--reference", honest) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == []
    assert told["reference"] == str(honest)


def header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip archive, as torch.save writes it",
        b"\x80\x04\x95 a pickle",
        header(b"{}", 2**62),
        header(b"not json"),
        header(b"{}"),
        header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}') + b"1234",
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"1234",
        header(b'{"a":{"dtype":"??","shape":[1],"data_offsets":[0,4]}}') + b"1234",
        header(b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}') + b"12345678",
    ],
)
def test_files_that_are_no_models(content: bytes, tmp_path: Path, capsys: Any) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    assert scan(bad) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert "safetensors" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_missing_files(tmp_path: Path, honest: Path, capsys: Any) -> None:
    assert scan(tmp_path / "nowhere.safetensors") == 2
    assert "no such file" in capsys.readouterr().err
    assert scan(tmp_path) == 2
    assert scan(honest, "--reference", tmp_path / "nowhere") == 2


def test_names_cannot_write_to_the_terminal(tmp_path: Path, capsys: Any) -> None:
    evil = "\x1b[2J\x1b]0;gotcha\x07\nnothing suspicious" + "x" * 5000
    save_file({evil: torch.full((20, 20), float("nan"))}, tmp_path / "evil.safetensors")
    assert scan(tmp_path / "evil.safetensors") == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert len(out.splitlines()) == 2
    assert len(out) < 1000
    assert scan(tmp_path / "evil.safetensors", "--json") == 1
    raw = capsys.readouterr().out
    assert "\x1b" not in raw
    assert json.loads(raw)["findings"][0]["parameter"] == evil


def test_help(capsys: Any) -> None:
    assert scan("--help") == 0
    out = capsys.readouterr().out
    assert "fedaudit scan round_12.safetensors --reference round_11.safetensors" in out
    assert "Exit codes" in out
