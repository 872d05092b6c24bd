"""Chromium for the tests of the page; it may be missing, and the tests say so."""

import shutil
import subprocess
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
