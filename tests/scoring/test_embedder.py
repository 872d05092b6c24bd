import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedaudit.core.errors import AssetError
from fedaudit.data.orl import orl
from fedaudit.files.weights import read_weights
from fedaudit.scoring.embedder import load_embedder

PEOPLE = 12


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    return load_embedder().embed(orl(size=64).images[: 10 * PEOPLE])


def test_people_are_told_apart(vectors: Tensor) -> None:
    person = torch.arange(len(vectors)) // 10
    alike = vectors @ vectors.T
    same = (person[:, None] == person) & ~torch.eye(len(vectors), dtype=torch.bool)
    nearest = alike.clone().fill_diagonal_(-1).argmax(1)
    assert (person[nearest] == person).float().mean() >= 0.95
    # Nearly every photo of the same person is closer than nearly every one of another's.
    assert alike[same].quantile(0.1) > alike[person[:, None] != person].quantile(0.9)


def test_unit_vectors(vectors: Tensor) -> None:
    assert vectors.shape == (10 * PEOPLE, 128)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert not vectors.requires_grad


def test_an_image_alone_and_in_a_batch_agree(vectors: Tensor) -> None:
    images = orl(size=64).images
    for i in (0, 17):
        assert torch.allclose(load_embedder().embed(images[i : i + 1])[0], vectors[i], atol=1e-5)


def test_one_channel_is_grey() -> None:
    images = orl(size=32).images[:2]
    embedder = load_embedder()
    assert torch.equal(embedder.embed(images), embedder.embed(images[:, :1]))
    assert embedder.embed(images[:0]).shape == (0, 128)


def test_identity_survives_shrinking_but_noise_has_none(vectors: Tensor) -> None:
    small = load_embedder().embed(orl(size=32).images[:20])
    assert ((small * vectors[:20]).sum(1) > 0.9).all()
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (load_embedder().embed(noise) @ vectors.T).max() < small[0] @ vectors[0]


def test_gradients_reach_the_image() -> None:
    image = orl(size=64).images[:1].requires_grad_()
    network = load_embedder().network
    network(torch.nn.functional.interpolate(image, (150, 150))).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def manifest(folder: Path, entries: list[dict[str, object]], data: bytes) -> Path:
    (folder / "net.bin").write_bytes(data)
    file = folder / "net-weights_manifest.json"
    file.write_text(json.dumps([{"paths": ["net.bin"], "weights": entries}]))
    return file


def test_weights_are_dequantized(tmp_path: Path) -> None:
    scheme = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
    entries: list[dict[str, object]] = [
        {"name": "a", "shape": [2, 2], "quantization": scheme},
        {"name": "b", "shape": []},
    ]
    data = bytes([0, 1, 2, 4]) + np.float32(3.5).tobytes()
    weights = read_weights(manifest(tmp_path, entries, data))
    assert torch.equal(weights["a"], torch.tensor([[-1.0, -0.5], [0.0, 1.0]]))
    assert weights["b"] == 3.5


@pytest.mark.parametrize("data", [b"", b"1234", b"123456789"])
def test_weights_of_another_length_are_refused(tmp_path: Path, data: bytes) -> None:
    file = manifest(tmp_path, [{"name": "a", "shape": [2]}], data)
    with pytest.raises(AssetError, match="do not fit each other"):
        read_weights(file)


def test_weights_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"12345678")
    file = manifest(tmp_path / "inner", [{"name": "a", "shape": [2]}], b"")
    file.write_text(file.read_text().replace("net.bin", "../secret.bin"))
    with pytest.raises(AssetError):
        read_weights(file)
