"""Unpacking: what is needed alone, and nothing outside the folder."""

import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_archive

sys.path.insert(0, str(Path(__file__).parent))
from toy_assets import CONTENT, asset_of, tarred, zipped


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zipped(tmp_path / "toys-1.0-py3-none-any.whl")


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
