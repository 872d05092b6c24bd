"""The pinned table, and the genuine assets that it names."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS, Asset


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
