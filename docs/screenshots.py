"""Pictures of a whole report at the widths of a desk, a tablet and a phone, for these pages.

    fedaudit demo --output demo-run && python docs/screenshots.py demo-run-color/report.html

Only of people who do not exist: the demo in color is of such. It needs Chromium, Node and npm.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests" / "reports"))
from tour import look  # noqa: E402 - the line above finds it

WIDTHS = {1400: 0.5, 800: 0.5, 390: 0.75}
"""Of the screen, and the scale of the picture: small files whose headings can be read."""


def main(report: Path) -> None:
    """Write `docs/report_WIDTH.png`, in few colors."""
    files = {width: DOCS / f"report_{width}.png" for width in WIDTHS}
    views = [
        {
            "name": str(width),
            "page": report.resolve().as_uri(),
            "width": width,
            "scale": scale,
            "shots": {"all": str(files[width])},
        }
        for width, scale in WIDTHS.items()
    ]
    with tempfile.TemporaryDirectory() as place:
        look(views, Path(place))
    for file in files.values():
        Image.open(file).convert("RGB").quantize(48).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
