"""Whose embeddings are kept for other runs, and that those kept are those computed."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedaudit.captures.simulate import study_faces
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.scoring.embedder import Embedder

PHOTOS = 4


def face_set(size: int, *, public: bool) -> FaceSet:
    images = torch.rand(2 * PHOTOS, 3, size, size, generator=torch.Generator().manual_seed(0))
    people = tuple(person for person in "ab" for _ in range(PHOTOS))
    return FaceSet("made up", images, people, people, "", public=public)


@dataclass(frozen=True)
class Counting(Embedder):
    """Mean colors, and how many photos it was asked for."""

    asked: tuple[list[int], ...] = ()

    def embed(self, images: Tensor) -> Tensor:
        self.asked[0].append(len(images))
        return nn.functional.normalize(self.network(images.mean((2, 3))), dim=1)


@pytest.fixture
def embedder() -> Counting:
    network = nn.Linear(3, 5).requires_grad_(False)
    nn.init.eye_(network.weight)
    return Counting(network, "colors", ([],))


SPLIT = Split((("a",), ("b",)), ((0,), (4,)), {}, {"a": (2, 3), "b": (6, 7)}, ())


def embedded(embedder: Embedder, *, public: bool, held: Split = SPLIT) -> dict[str, Tensor]:
    small, full = (face_set(size, public=public) for size in (4, 8))
    return study_faces._embedded(small, full, held, embedder)


@pytest.mark.parametrize("public", [True, False])
def test_only_public_templates_are_kept(
    public: bool, embedder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path)
    first = embedded(embedder, public=public)
    assert sorted(first) == [
        "frame",
        *(f"{kind}/{p}" for kind in ("nearest", "probe", "reference") for p in "ab"),
    ]
    assert sum(embedder.asked[0]) == 2 * 2 * PHOTOS  # each photo and its mirror image
    assert len(list(tmp_path.rglob("*.safetensors"))) == public
    again = embedded(embedder, public=public)
    assert sum(embedder.asked[0]) == (1 if public else 2) * 2 * 2 * PHOTOS
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_decides_the_embeddings_decides_what_is_found(
    embedder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path)
    first = embedded(embedder, public=True)
    other = replace(SPLIT, gallery={"a": (3,), "b": (6, 7)})
    assert len(embedded(embedder, public=True, held=other)["reference/a"]) == 1
    embedder.network.bias.data.add_(1)  # type: ignore[operator]
    assert not torch.equal(embedded(embedder, public=True)["probe/a"], first["probe/a"])


def test_a_cache_that_cannot_be_written_stops_nothing(
    embedder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path / "file")
    assert len(embedded(embedder, public=True)["probe/b"]) == PHOTOS - 2
