import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fedaudit.core.errors import UsageError
from fedaudit.models.generator import load_generator
from fedaudit.models.prior_file import ARCHITECTURES, Manifest, read_prior, write_prior
from fedaudit.models.stacked_generator import Architecture, StackedGenerator

WIDTHS = (8, 4)
ABOUT: dict[str, Any] = {"widths": list(WIDTHS), "latent_dim": 5}


def fresh(architecture: Architecture, mapped: bool = False) -> StackedGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ARCHITECTURES[architecture](WIDTHS, 5, (0.1, 0.9, 0.0, 1.0), mapped).eval()


@pytest.fixture
def generator() -> StackedGenerator:
    return fresh("dcgan")


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("architecture", ["dcgan", "style"])
def test_there_and_back(tmp_path: Path, architecture: Architecture, mapped: bool) -> None:
    path, generator = tmp_path / "own.safetensors", fresh(architecture, mapped)
    manifest = Manifest(
        architecture=architecture,
        widths=WIDTHS,
        latent_dim=5,
        crop=generator.crop,
        mapped=mapped,
        data="faces",
        psnr=20.5,
    )
    write_prior(path, generator, manifest)
    found = read_prior(path)
    assert found.manifest == manifest
    assert type(found.generator) is type(generator)
    z = found.generator.latents.draw(3, torch.Generator().manual_seed(0))
    assert z.shape == (3, 5)
    assert torch.equal(found.generator(z), generator(z))
    assert found.generator(z).shape == (3, 3, 16, 16)
    assert not found.generator.training
    assert not any(p.requires_grad for p in found.generator.parameters())
    loaded = load_generator(str(path))
    assert loaded.crop == (0.1, 0.9, 0.0, 1.0)
    assert torch.equal(loaded(z), generator(z))


def test_a_longer_description_changes_no_image(tmp_path: Path) -> None:
    widths, images = (64, 32, 16), []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = ARCHITECTURES["style"](widths, 100, (0.0, 1.0, 0.0, 1.0), True)
    manifest = Manifest(architecture="style", widths=widths, latent_dim=100, mapped=True)
    z = torch.randn(1, 100, generator=torch.Generator().manual_seed(0))
    for length in range(0, 64, 8):  # the weights follow in the file
        path = tmp_path / f"{length}.safetensors"
        write_prior(path, generator, manifest.model_copy(update={"data": length * "x"}))
        images.append(read_prior(path).generator(z))
    assert all(torch.equal(drawn, images[0]) for drawn in images)


def test_files_older_than_the_choice_hold_a_dcgan(
    generator: StackedGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "old.safetensors"
    about = json.dumps(ABOUT | {"version": 1})
    path.write_bytes(safetensors.torch.save(generator.state_dict(), {"fedaudit_prior": about}))
    found = read_prior(path)
    assert found.manifest.architecture == "dcgan"
    z = torch.zeros(1, 5)
    assert torch.equal(found.generator(z), generator(z))


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]
FIRST = "stages.0.0.weight"
CHANGES: dict[str, tuple[Change, str]] = {
    "no description": (lambda t, m: m.clear(), "widths"),
    "huge": (lambda t, m: m.update(widths=[10**9, 4]), "widths.0"),
    "no stages": (lambda t, m: m.update(widths=[]), "widths"),
    "unknown": (lambda t, m: m.update(code="import os"), "code"),
    "crop": (lambda t, m: m.update(crop=[0.9, 0.1, 0, 1]), "top < bottom"),
    "version": (lambda t, m: m.update(version=2), "version"),
    "unknown kind": (lambda t, m: m.update(architecture="diffusion"), "architecture"),
    "other kind": (lambda t, m: m.update(architecture="style"), "tensors are not those"),
    "other widths": (lambda t, m: m.update(widths=[9, 4]), "another shape"),
    "mapped": (lambda t, m: m.update(mapped=True), "tensors are not those"),
    "other depth": (lambda t, m: m.update(widths=[8, 4, 4]), "tensors are not those"),
    "missing": (lambda t, m: t.pop(FIRST), "tensors are not those"),
    "surplus": (lambda t, m: t.update(x=torch.ones(1)), "tensors are not those"),
    "nan": (lambda t, m: t[FIRST].fill_(float("nan")), "cannot have"),
    "type": (lambda t, m: t.update({FIRST: t[FIRST].half()}), "cannot have"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_are_refused(generator: StackedGenerator, tmp_path: Path, name: str) -> None:
    change, said = CHANGES[name]
    tensors = {k: v.clone() for k, v in generator.state_dict().items()}
    about = dict(ABOUT)
    change(tensors, about)
    path = tmp_path / "own.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"fedaudit_prior": json.dumps(about)}))
    with pytest.raises(UsageError, match=f"cannot be used as a prior: .*{said}"):
        load_generator(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"widths": [10**9, 4]}, "widths.0"),
        ({"widths": [4096, 4096]}, "another shape"),
        ({"architecture": "dcgan"}, "tensors are not those"),
    ],
)
def test_style_files_that_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    about = json.dumps(ABOUT | {"architecture": "style"} | change)
    content = safetensors.torch.save(fresh("style").state_dict(), {"fedaudit_prior": about})
    path = tmp_path / "own.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"cannot be used as a prior: .*{said}"):
        read_prior(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{'not json'}  "])
def test_bytes_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be used as a prior"):
        read_prior(path)
    with pytest.raises(UsageError, match="no prior file"):
        read_prior(tmp_path / "absent.safetensors")


def test_weights_without_a_description(generator: StackedGenerator, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(generator.state_dict(), path)
    with pytest.raises(UsageError, match="no description"):
        read_prior(path)


def test_a_torn_file(generator: StackedGenerator, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    write_prior(path, generator, Manifest(**ABOUT))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UsageError, match="cannot be used as a prior"):
        read_prior(path)
