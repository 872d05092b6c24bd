"""Chromium and axe-core for the tests of the page; both may be missing, and the tests say so."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

DARK, LIGHT = 0, 1
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=15000",
    "--dump-dom",
)


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    found = found or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this computer")
    return found


def load(page: Path, profile: Path, *, scheme: int = LIGHT, width: int = 1280) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and the browser's log about it."""
    command = (
        chromium(),
        *_FLAGS,
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        f"--blink-settings=preferredColorScheme={scheme}",
        page.as_uri(),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    if not done.stdout.strip():
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def axe(folder: Path) -> str:
    """The source of axe-core 4, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this computer, so no axe-core")
    packed = subprocess.run(
        (npm, "pack", "axe-core@4", "--silent"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    found = sorted(folder.glob("axe-core-*.tgz"))
    if packed.returncode or not found:
        pytest.skip("npm cannot fetch axe-core: no network")
    with tarfile.open(found[-1]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def with_scripts(page: str, *scripts: str) -> str:
    """A copy of the page that also runs `scripts`, its policy extended by their hashes."""
    from fedaudit.reports.html import source_hash

    hashes = " ".join(source_hash(script).replace("'", "&#39;") for script in scripts)
    page, changed = re.subn(r"(script-src )", rf"\1{hashes} ", page, count=1)
    assert changed == 1
    tags = "".join(f"<script>{script}</script>" for script in scripts)
    before, end, after = page.rpartition("</body>")
    return before + tags + end + after
