"""`fedaudit doctor`: whether this computer can run audits, and what to do where it cannot."""

import contextlib
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

import fedaudit
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.cli.terminal_table import show
from fedaudit.files import asset_store
from fedaudit.files.asset_sources import npm
from fedaudit.files.asset_table import ASSETS, Asset

MEMORY_WANTED = 4e9
"""Bytes below which an audit with several workers may run out of memory."""

DISK_WANTED = 5e8
"""Bytes that fetching all assets takes at its peak."""

Fault = Literal["note", "problem"]
"""A problem keeps a default study from running; a note is worth knowing."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Check:
    """One fact about this computer, and what to do about it, which is empty where it is fine."""

    name: str
    status: Literal["ok"] | Fault
    value: str
    advice: str = ""


@click.command(
    epilog=examples(
        "fedaudit doctor",
        "fedaudit doctor --json > doctor.json",
        note="Exit codes: 0 everything that a default study needs is there, 4 something is not.",
    )
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Check that this computer can run audits: packages, memory, disk, assets, programs."""
    checks = list(examine())
    healthy = all(check.status != "problem" for check in checks)
    if as_json:
        content = {"healthy": healthy, "checks": [asdict(check) for check in checks]}
        say_json(content)
    else:
        show(("check", "status", "found"), [(c.name, c.status, c.value) for c in checks])
        for check in checks:
            if check.advice:
                say(f"\n{check.name}: {check.advice}")
    context.exit(0 if healthy else 4)


def examine() -> Iterator[Check]:
    """Look at everything, in the order in which it is shown."""
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    fault: Fault | None = "problem" if sys.version_info < (3, 11) else None
    yield _check("python", version, fault, "Install Python 3.11 or later.")
    yield from _packages()
    yield _cores()
    yield _memory()
    yield from _folders()
    yield from map(_asset, ASSETS.values())
    yield from _programs()


def _check(name: str, value: str, fault: Fault | None, advice: str) -> Check:
    return Check(name, fault or "ok", value, advice if fault else "")


def _packages() -> Iterator[Check]:
    """The required packages one by one, then a line for each extra."""
    try:
        requirements = metadata.requires("fedaudit") or []
    except metadata.PackageNotFoundError:
        yield Check("fedaudit", "problem", "not installed", f"Run: {_install()}")
        return
    yield Check("fedaudit", "ok", metadata.version("fedaudit"))
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if extra := re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement):
            extras.setdefault(extra[1], []).append(name)
        else:
            version = _version(name)
            fault: Fault | None = None if version else "problem"
            yield _check(name, version or "not installed", fault, f"Run: {_install()}")
    for group, names in extras.items():
        absent = [name for name in names if _version(name) is None]
        value = f"without {', '.join(absent)}" if absent else "complete"
        advice = f"Only if you want it: {_install(group)}"
        yield _check(f"extra {group}", value, "note" if absent else None, advice)


def _install(extra: str = "") -> str:
    """The command that installs fedaudit anew: from the checkout, if this is one."""
    root = Path(fedaudit.__file__).resolve().parents[1]
    checkout = (root / "pyproject.toml").is_file()
    what = (str(root) if checkout else "fedaudit") + (f"[{extra}]" if extra else "")
    how = ["-e"] if checkout else ["--upgrade"]
    return shlex.join([sys.executable, "-m", "pip", "install", *how, what])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> Check:
    # A container or a batch system may grant fewer cores than the machine has.
    affinity = getattr(os, "sched_getaffinity", None)
    return Check("cores", "ok", str(len(affinity(0)) if affinity else os.cpu_count() or 1))


def _memory() -> Check:
    try:
        size = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return Check("memory", "ok", "unknown")
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        size = min(size, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    fault: Fault | None = "note" if size < MEMORY_WANTED else None
    return _check("memory", f"{size / 1e9:.1f} GB", fault, "Run studies with --workers 1.")


def _folders() -> Iterator[Check]:
    """The cache and the working folder: may they be written, and is there space?"""
    cache = asset_store.cache_dir()
    missing = [name for name in ASSETS if asset_store.state(name) is not asset_store.State.PRESENT]
    fault: Fault | None
    if _writable(cache):
        free = shutil.disk_usage(_existing(cache)).free
        fault = "problem" if free < DISK_WANTED and missing else None
        advice = "Free some space, or set FEDAUDIT_CACHE to a folder on a larger disk."
        yield _check("cache", f"{cache}, {free / 1e9:.1f} GB free", fault, advice)
    else:
        # A cache that is filled and read-only, as in a container image, does its work.
        fault = "problem" if missing else "note"
        advice = f"Correct the permissions of {cache}, or set FEDAUDIT_CACHE to another folder."
        yield _check("cache", f"{cache}, read-only", fault, advice)
    here = Path.cwd()
    fault = None if _writable(here) else "note"
    value = f"{here}, {'read-only' if fault else 'writable'}"
    yield _check("working folder", value, fault, "Name a folder that can be written with --output.")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _writable(folder: Path) -> bool:
    """Try it: permission bits do not tell of read-only mounts and quotas."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _asset(asset: Asset) -> Check:
    state = asset_store.state(asset.name, thorough=True)
    fault: Fault | None = "note" if asset.optional else "problem"
    if state in asset_store.AT_HAND:
        fault = None
    place = os.environ.get(asset.variable)
    advice = (
        f"{asset.variable} names {place}, which does not exist: correct it or unset it."
        if place
        else f"Run: fedaudit assets fetch {asset.name}"
    )
    return _check(f"asset {asset.name}", state.value, fault, advice)


def _programs() -> Iterator[Check]:
    client = npm()
    have = asset_store.state("face_embedder") in asset_store.AT_HAND
    is_needed = client is None and not have
    yield _check(
        "npm",
        client or "not found",
        "note" if is_needed else None,
        "Asset face_embedder is served by npm; Node.js is fetched from PyPI for it (61 MB, "
        "removed afterwards).",
    )
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    yield _check(
        "chromium",
        browser or "not found",
        None if browser else "note",
        "Only the browser tests of the report need it; audits and reports do not.",
    )
