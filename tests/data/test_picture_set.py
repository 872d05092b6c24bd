"""Pictures that are no faces, in the layouts that people have them in."""

import gzip
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Federation
from fedaudit.data.face_set import class_of
from fedaudit.data.picture_set import pictures
from fedaudit.data.splits import require_one_client_each, split

Pixels = NDArray[np.uint8]


def draw(count: int, *shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def medmnist(path: Path, labels: NDArray[np.int64], *shape: int) -> Path:
    file = path / "toymnist.npz"
    np.savez(file, train_images=draw(len(labels), *shape), train_labels=labels)
    return file


def cifar(path: Path, count: int = 12) -> Path:
    """CIFAR-10 as its archive unpacks: five pickled batches of rows, and the classes' names."""
    folder = path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        labels = [k % 3 for k in range(count)]
        batch = {b"data": draw(count, 3072, seed=number), b"labels": labels}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch))
    names = {b"label_names": [b"airplane", b"automobile", b"bird"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    return path


def mnist(path: Path, *, zipped: bool) -> Path:
    pixels, labels = draw(8, 28, 28), np.array([3, 3, 3, 3, 7, 7, 7, 7], np.uint8)
    header = b"".join(n.to_bytes(4, "big") for n in (2051, 8, 28, 28))
    files = {
        "train-images-idx3-ubyte": header + pixels.tobytes(),
        "train-labels-idx1-ubyte": header[:8] + labels.tobytes(),
    }
    folder = path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, raw in files.items():
        ending = ".gz" if zipped else ""
        (folder / (name + ending)).write_bytes(gzip.compress(raw) if zipped else raw)
    return path


def x_rays(path: Path, **counts: int) -> Path:
    """Folders of 16-bit gray PNG files, a class each, some of them deeper."""
    for number, (label, count) in enumerate(counts.items()):
        folder = path / label / "site" if number else path / label
        folder.mkdir(parents=True)
        for k in range(count):
            deep = draw(1, 40, 50, seed=100 * number + k)[0].astype(np.uint16) * 257
            Image.fromarray(deep).save(folder / f"patient-{k}.png")
    return path


def test_cifar(tmp_path: Path) -> None:
    found = pictures(path=str(cifar(tmp_path)), size=32, images=30)
    assert found.images.shape == (30, 3, 32, 32)
    assert Counter(found.classes) == {"airplane": 10, "automobile": 10, "bird": 10}
    first = torch.from_numpy(draw(12, 3072, seed=1)[0].reshape(3, 32, 32)).float() / 255
    assert bool((found.images == first).flatten(1).all(1).any())
    assert found.public


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist(tmp_path: Path, zipped: bool) -> None:
    found = pictures(path=str(mnist(tmp_path, zipped=zipped)), size=28)
    assert Counter(found.classes) == {"3": 4, "7": 4}
    gray = found.images
    assert bool((gray == gray[:, :1]).all())
    assert torch.equal(
        gray[:, 0].flatten(1).sum(1).sort().values,
        (torch.from_numpy(draw(8, 28, 28)).float() / 255).flatten(1).sum(1).sort().values,
    )


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)], ids=["gray", "color"])
def test_medmnist(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = medmnist(tmp_path, np.array([[0], [0], [1], [1], [1]]), *shape)
    found = pictures(path=str(file), size=28)
    assert Counter(found.classes) == {"0": 2, "1": 3}
    assert found.images.shape == (5, 3, 28, 28)
    assert not found.public


def test_of_several_findings_the_first_is_the_class(tmp_path: Path) -> None:
    findings = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 1, 0]])
    found = pictures(path=str(medmnist(tmp_path, findings, 28, 28)), size=28)
    assert Counter(found.classes) == {"none": 2, "1": 2}
    assert "3 findings" in found.notes[0]


def test_deep_x_rays_keep_their_shades_and_lose_their_names(tmp_path: Path) -> None:
    found = pictures(path=str(x_rays(tmp_path, normal=3, pneumonia=3)), size=40)
    assert found.people == tuple(f"{c} #{k}" for c in ("normal", "pneumonia") for k in (1, 2, 3))
    assert "patient" not in repr((found.people, found.notes))
    assert 0.45 < float(found.images.mean()) < 0.55
    assert len(set(found.images.flatten().tolist())) > 200
    moved = x_rays(tmp_path / "again", normal=3, pneumonia=3)
    for file in moved.rglob("*.png"):
        file.rename(file.with_name(f"{99 - int(file.stem[-1])}.png"))
    assert torch.equal(pictures(path=str(moved), size=40).images, found.images)


def test_a_folder_of_images_is_one_class(tmp_path: Path) -> None:
    root = x_rays(tmp_path, all=4) / "all"
    assert set(pictures(path=str(root), size=32).classes) == {"image"}


def test_a_class_of_one_is_left_out_and_so_is_a_twin(tmp_path: Path) -> None:
    root = x_rays(tmp_path, normal=3, rare=1)
    twin = (root / "normal" / "patient-0.png").read_bytes()
    (root / "normal" / "copy.png").write_bytes(twin)
    found = pictures(path=str(root), size=32)
    assert Counter(found.classes) == {"normal": 3}
    assert any("rare" in note for note in found.notes)
    assert any(note.startswith("1 image is there twice") for note in found.notes)


def _text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("none")
    return folder / "notes.txt"


def _volumes(folder: Path) -> Path:
    return medmnist(folder, np.array([[0], [1]]), 28, 28, 28)


def _pickle(folder: Path) -> Path:
    root = cifar(folder)
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({b"data": print}))
    return root


def _objects(folder: Path) -> Path:
    images = np.array([{"a": 1}, None], object)
    np.savez(folder / "x.npz", train_images=images, train_labels=np.zeros(2))
    return folder / "x.npz"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "none", "does not exist"),
    "empty": (lambda folder: folder, "no images"),
    "text": (_text, "no .npz file"),
    "volumes": (_volumes, "Volumes"),
    "code": (_pickle, "wants to import"),
    "objects": (_objects, "never executed"),
    "one each": (lambda folder: x_rays(folder, a=1, b=1), "no class has two"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_said(tmp_path: Path, case: str) -> None:
    make, words = BAD[case]
    with pytest.raises(DataError, match=words):
        pictures(path=str(make(tmp_path)), size=32)


def test_half_of_each_class_never_trains(tmp_path: Path) -> None:
    found = pictures(path=str(x_rays(tmp_path, normal=9, pneumonia=4)), size=32)
    dealt = split(found, Federation(clients=2))
    assert Counter(map(class_of, dealt.held_out)) == {"normal": 4, "pneumonia": 2}
    assert not set(dealt.held_out) & set(dealt.people)
    assert len(dealt.people) == 7
    with pytest.raises(DataError, match="share the classes"):
        require_one_client_each("FedGC", dealt)
    with pytest.raises(DataError, match="faces"):
        split(found, Federation(clients=2, partition="pose"))


def test_dirichlet_deals_classes_unevenly(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 60)[:, None]
    found = pictures(path=str(medmnist(tmp_path, labels, 8, 8)), size=8, images=240)

    def most(alpha: float) -> float:
        dealt = split(found, Federation(clients=4, partition="dirichlet", alpha=alpha))
        places = [Counter(map(class_of, people)) for people in dealt.clients]
        return sum(max(place[label] for place in places) for label in set(found.classes)) / 120

    assert most(0.05) > 0.8
    assert most(1000) < 0.35
