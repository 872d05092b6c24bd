"""Assets from made-up archives: nothing here reaches a registry."""

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedaudit.core.errors import AssetError, StorageError, UnknownNameError
from fedaudit.files import asset_sources, asset_store
from fedaudit.files.asset_table import ASSETS, Asset

sys.path.insert(0, str(Path(__file__).parent))
from toy_assets import asset_of, zipped


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zipped(tmp_path / "toys-1.0-py3-none-any.whl")


@pytest.fixture
def served(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """`served(asset)` registers it, serves `archive` for it, and returns the log of downloads."""
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDAUDIT_OFFLINE", raising=False)
    log: list[str] = []

    def download(asset: Asset, folder: Path) -> Path:
        log.append(asset.name)
        copy = folder / archive.name
        copy.write_bytes(archive.read_bytes())
        return copy

    def serve(*served_assets: Asset) -> list[str]:
        for asset in served_assets:
            monkeypatch.setitem(ASSETS, asset.name, asset)
        return log

    monkeypatch.setattr(asset_sources, "download", download)
    return serve


def test_only_the_needed_members_are_unpacked_once(
    archive: Path, served: Callable[..., list[str]]
) -> None:
    log = served(asset_of(archive))
    said: list[str] = []
    folder = asset_store.path("toys", say=said.append)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"a/1.txt", "a/2.txt", "b/1.txt"}
    assert (folder / "b/1.txt").read_bytes() == b"three"
    assert asset_store.path("toys", say=said.append) == folder
    assert log == ["toys"]
    assert said == ["fetched toys (0.0 MB) from PyPI toys 1.0"]
    assert not [p for p in asset_store.cache_dir().iterdir() if p.name.startswith(".")]


def test_entry_names_one_file(archive: Path, served: Callable[..., list[str]]) -> None:
    served(asset_of(archive, entry="a/2.txt"))
    assert asset_store.path("toys").read_bytes() == b"two"


def test_assets_of_one_archive_come_together(
    archive: Path, served: Callable[..., list[str]]
) -> None:
    other = asset_of(archive, name="bricks", members=("b/*.txt",), count=1)
    log = served(asset_of(archive), other)
    asset_store.path("toys")
    asset_store.path("bricks")
    assert log == ["toys"]


def test_wrong_hash_is_refused_and_leaves_nothing(
    archive: Path, served: Callable[..., list[str]]
) -> None:
    served(asset_of(archive, sha256="0" * 64))
    with pytest.raises(AssetError, match=r"not the pinned archive of asset 'toys'(.|\n)*pip downl"):
        asset_store.path("toys")
    assert list(asset_store.cache_dir().iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "deleted", "no manifest", "odd manifest"])
def test_damaged_cache_is_fetched_anew(
    archive: Path, served: Callable[..., list[str]], damage: str
) -> None:
    log = served(asset_of(archive))
    folder = asset_store.path("toys")
    manifest = folder.parent / "manifest.json"
    match damage:
        case "truncated":
            (folder / "a/1.txt").write_bytes(b"o")
        case "deleted":
            (folder / "a/1.txt").unlink()
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_text(json.dumps([1, 2]))
    assert asset_store.state("toys") is asset_store.State.DAMAGED
    assert (asset_store.path("toys") / "a/1.txt").read_bytes() == b"one"
    assert asset_store.state("toys", thorough=True) is asset_store.State.PRESENT
    assert log == ["toys", "toys"]


def test_equal_size_damage_needs_the_thorough_look(
    archive: Path, served: Callable[..., list[str]]
) -> None:
    log = served(asset_of(archive))
    assert asset_store.state("toys") is asset_store.State.MISSING
    file = asset_store.path("toys") / "a/1.txt"
    file.write_bytes(b"0ne")
    assert asset_store.state("toys") is asset_store.State.PRESENT
    assert asset_store.state("toys", thorough=True) is asset_store.State.DAMAGED
    asset_store.path("toys")  # which hashes what it gives
    assert file.read_bytes() == b"one"
    assert log == ["toys", "toys"]


def test_a_manifest_altered_along_is_noticed(
    archive: Path, served: Callable[..., list[str]]
) -> None:
    served(asset_of(archive))
    folder = asset_store.path("toys")
    genuine = asset_store.digest("toys")
    assert genuine is not None
    log = served(asset_of(archive, unpacked=genuine))
    (folder / "a/1.txt").write_bytes(b"0ne")
    manifest = folder.parent / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["a/1.txt"]["sha256"] = hashlib.sha256(b"0ne").hexdigest()
    manifest.write_text(json.dumps(content))
    assert asset_store.digest("toys") != genuine
    assert (asset_store.path("toys") / "a/1.txt").read_bytes() == b"one"
    assert (log, asset_store.digest("toys")) == (["toys", "toys"], genuine)


def test_two_may_fetch_at_once(archive: Path, served: Callable[..., list[str]]) -> None:
    served(asset_of(archive))
    found: list[Path] = []
    barrier = threading.Barrier(4)

    def fetch() -> None:
        barrier.wait()
        found.append(asset_store.path("toys"))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert asset_store.state("toys", thorough=True) is asset_store.State.PRESENT


def test_offline_says_what_to_run_where(
    archive: Path, served: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = served(asset_of(archive))
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    with pytest.raises(AssetError) as caught:
        asset_store.path("toys")
    message = str(caught.value)
    assert "asset 'toys'" in message
    assert "python -m pip download --no-deps --only-binary :all: toys==1.0" in message
    assert "FEDAUDIT_ASSET_TOYS" in message
    assert caught.value.exit_code == 4
    assert log == []


def test_offline_does_not_matter_once_cached(
    archive: Path, served: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    served(asset_of(archive))
    folder = asset_store.path("toys")
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    assert asset_store.path("toys") == folder


def test_variable_names_the_archive(
    archive: Path, served: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = served(asset_of(archive))
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    monkeypatch.setenv("FEDAUDIT_ASSET_TOYS", str(archive))
    said: list[str] = []
    assert (asset_store.path("toys", say=said.append) / "a/1.txt").read_bytes() == b"one"
    assert asset_store.path("toys", say=said.append)
    assert said == [f"unpacked toys from {archive.name}"]
    assert log == []


def test_variable_names_another_archive(
    archive: Path,
    served: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served(asset_of(archive))
    other = zipped(tmp_path / "other.whl", {"x": b"y"})
    monkeypatch.setenv("FEDAUDIT_ASSET_TOYS", str(other))
    with pytest.raises(AssetError, match=r"other\.whl is not the pinned archive"):
        asset_store.path("toys")


def test_variable_names_unpacked_files(
    archive: Path,
    served: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served(asset_of(archive, entry="a/1.txt"))
    mine = tmp_path / "mine"
    (mine / "a").mkdir(parents=True)
    (mine / "a/1.txt").write_text("my own")
    for named in (mine, mine / "a/1.txt"):
        monkeypatch.setenv("FEDAUDIT_ASSET_TOYS", str(named))
        assert asset_store.path("toys").read_text() == "my own"
        assert asset_store.state("toys") is asset_store.State.YOURS
    monkeypatch.setenv("FEDAUDIT_ASSET_TOYS", str(tmp_path / "absent"))
    assert asset_store.state("toys") is asset_store.State.MISSING
    with pytest.raises(AssetError, match=r"FEDAUDIT_ASSET_TOYS names .*does not exist"):
        asset_store.path("toys")


def test_unwritable_cache_is_a_storage_error(
    archive: Path,
    served: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served(asset_of(archive))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set FEDAUDIT_CACHE"):
        asset_store.path("toys")


def test_unknown_name_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'face_gan'"):
        asset_store.path("face_gam")
