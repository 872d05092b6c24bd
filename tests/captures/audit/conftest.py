"""A recorded run, the photos of its auditor and one finished audit, once for all tests here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from fedaudit.core.scenario import Study
from fedaudit.data.face_set import FaceSet
from fedaudit.reports.results import Results
from fedaudit.scoring.embedder import Embedder

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import CLIENTS, NAMES, people, record, requested, run, save


@pytest.fixture(scope="session")
def embeddings() -> dict[bytes, Tensor]:
    """What was embedded before, by the photos' bytes."""
    return {}


@pytest.fixture(scope="module", autouse=True)
def embedded_once(embeddings: dict[bytes, Tensor]) -> Iterator[None]:
    """The same photos have the same embeddings: each run has a gallery of nearly the same."""
    embed = Embedder.embed

    def once(embedder: Embedder, images: Tensor) -> Tensor:
        key = repr(images.shape).encode() + images.numpy().tobytes()
        if key not in embeddings:
            embeddings[key] = embed(embedder, images)
        return embeddings[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "embed", once)
        yield


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    return record(tmp_path_factory.mktemp("capture") / "c", faces, NAMES)


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> dict[str, Path]:
    """Each client's folder holds two of its photos, of which one was trained on."""
    root = tmp_path_factory.mktemp("truth")
    for client, (person, photos) in zip(range(CLIENTS), people(faces).items(), strict=False):
        for photo in photos[:2]:
            save(faces.images[photo], root / f"client-{client}" / person / f"{photo}.png")
    return {f"client-{k}": root / f"client-{k}" for k in range(CLIENTS)}


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    """Five photos of everybody, that which was trained on among them."""
    root = tmp_path_factory.mktemp("gallery")
    for person, photos in people(faces).items():
        for photo in photos[:5]:
            save(faces.images[photo], root / person / f"{photo}.png")
    return root


@pytest.fixture(scope="session")
def known(capture: Path, truth: dict[str, Path], gallery: Path) -> Study:
    return requested(capture, truth=truth, gallery=gallery)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, known: Study) -> tuple[Path, Results]:
    path = tmp_path_factory.mktemp("known") / "run"
    return path, run(known, path, evidence="full")
