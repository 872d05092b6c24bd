import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import kept_faces
from fedaudit.cli import cli
from fedaudit.core.errors import UsageError
from fedaudit.data.folder import folder
from fedaudit.data.orl import orl
from fedaudit.files.cache import digest_of, learned_dir, list_entries, load_or_learn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _photos(root: Path, first: int) -> Path:
    """Two people with two photos each."""
    from PIL import Image

    images = (orl(size=64).images[first : first + 4] * 255).byte()
    for number, image in enumerate(images):
        file = root / f"p{number // 2}" / f"{number % 2}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy().squeeze()).save(file)
    assert len(folder(path=str(root)).images) == 4
    return root


def _learned(root: Path, cache: Path) -> torch.Tensor:
    auxiliary = Auxiliary(photos=str(root), real=False)
    return kept_faces(auxiliary, 16, (1, 16, 16), grayscale=True, seed=0, cache=str(cache))


def test_other_photos_under_the_same_path_are_learned_anew(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    one = _learned(_photos(faces, 0), tmp_path / "cache")
    assert torch.equal(one, _learned(faces, tmp_path / "cache"))
    faces.rename(tmp_path / "moved")
    assert torch.equal(one, _learned(tmp_path / "moved", tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the same photos at another place
    other = _learned(_photos(faces, 40), tmp_path / "cache")
    assert not torch.equal(one, other)


def test_the_stock_generator_keeps_its_name() -> None:
    assert Auxiliary().by_content() == Auxiliary()


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    one = digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    two = digest_of(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({one, two, digest_of(tmp_path)}) == 3


def _keep(key: str, photos: str | None = None) -> None:
    load_or_learn(key, lambda: {"w": torch.ones(3)}, None, what=f"thing {key}", photos=photos)


def _cache(*words: str) -> str:
    result = CliRunner().invoke(cli, ["cache", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def test_ls_says_what_is_kept_and_from_whose_photos(home: Path) -> None:
    assert _cache("ls").splitlines() == ["key  what  size  photos  made"]
    _keep("a1", str(home / "mine"))
    _keep("b2")
    (learned_dir() / "d4.safetensors").write_bytes(b"no tensors")
    save_file({"w": torch.ones(1)}, learned_dir() / "c3.safetensors")
    listed = {one["key"]: one for one in json.loads(_cache("ls", "--json"))}
    assert {key: one["what"] for key, one in listed.items()} == {
        "a1": "thing a1",
        "b2": "thing b2",
        "c3": "unknown",
        "d4": "damaged",
    }
    assert listed["a1"]["photos"] == str(home / "mine")
    assert listed["b2"]["photos"] == ""
    assert f"yours: {home / 'mine'}" in _cache("ls")


def test_rm_removes_what_is_named_and_nothing_else(home: Path) -> None:
    for key, photos in (("a1", "mine"), ("a2", "mine"), ("b1", None), ("c1", None)):
        _keep(key, photos)
    os.utime(learned_dir() / "c1.safetensors", (0, 0))
    for wrong in ((), ("x",), ("",), ("../a1",), ("*",)):
        with pytest.raises(UsageError):
            _cache("rm", *wrong)
    assert "removed 1 file(s)" in _cache("rm", "b")
    assert [one.key for one in list_entries()] == ["c1", "a1", "a2"]
    assert "removed 2 file(s)" in _cache("rm", "--photos")
    assert [one.key for one in list_entries()] == ["c1"]
    assert "removed 1 file(s)" in _cache("rm", "--all")
    assert list_entries() == ()
