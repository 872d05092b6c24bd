"""Pictures of a report: its top, and all of it at the widths of a desk, a tablet and a phone.

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

PICTURES = {
    "demo": (1400, 1),
    "report_1400": (1400, 0.5),
    "report_800": (800, 0.5),
    "report_390": (390, 0.75),
}
"""Width of the screen, and the scale of the picture: small files whose headings can be read."""
TOP, COLORS = 1000, 128
"""Height of the first picture, and how many colors faces take."""


def main(report: Path) -> None:
    """Write `docs/demo.png` and `docs/report_WIDTH.png`, in few colors."""
    views = [
        {
            "name": name,
            "page": report.resolve().as_uri(),
            "width": width,
            "scale": scale,
            "shots": {"all": str(DOCS / f"{name}.png")},
        }
        for name, (width, scale) in PICTURES.items()
    ]
    with tempfile.TemporaryDirectory() as place:
        look(views, Path(place))
    for name in PICTURES:
        file = DOCS / f"{name}.png"
        picture = Image.open(file).convert("RGB")
        if name == "demo":
            picture = picture.crop((0, 0, picture.width, TOP))
        picture.quantize(COLORS).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
