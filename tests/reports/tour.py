"""One visit of Chromium to several pages, driven by Playwright; what it saw, by view.

`python tests/reports/tour.py` draws the pictures anew that the page is compared with.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser import chromium
from npm import npm_package
from sample import page

REFERENCES = Path(__file__).parent / "references"
COMPARED = ("verdict", "defenses", "evidence", "exposure", "findings")
SCALE = 0.25
"""Of the pictures: small files, in which letters of another font weigh little."""

View = Mapping[str, Any]


def look(views: Sequence[View], folder: Path) -> dict[str, Any]:
    """What `look.cjs` saw of each view, by its name; skips where a browser or npm is missing."""
    browser = chromium()
    npm_package("playwright-core@1", folder)
    axe = npm_package("axe-core@4", folder) / "axe.min.js"
    job = {"chromium": browser, "axe": str(axe), "views": views}
    done = subprocess.run(
        ("node", str(Path(__file__).parent / "look.cjs")),
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ | {"NODE_PATH": str(folder / "node_modules")},
    )
    if "Failed to launch" in done.stderr:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def pictures_of(file: Path, folder: Path) -> dict[str, Any]:
    """A view that takes the pictures that are compared, into `folder`."""
    shots = {name: str(folder / f"{name}.png") for name in COMPARED}
    return {"name": "shots", "page": file.as_uri(), "width": 1400, "scale": SCALE, "shots": shots}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "report.html"
        source.write_text(page("full"), "utf-8")
        REFERENCES.mkdir(exist_ok=True)
        look([pictures_of(source, REFERENCES)], Path(place))
