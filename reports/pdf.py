"""The report as a PDF for people who print, file or sign it; needs the extra `fedaudit[pdf]`."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ImageFile

from fedaudit.core.errors import ConfigError

_DRAWINGS = {
    "icon": "sign of the word beside it",
    "spark": "the number beside it, drawn",
    "gauge": "the cosine beside it, drawn",
    "key-mark": "mark of the word beside it",
}
"""Alternate texts of small drawings by class: on paper none can be hidden from a screen reader."""
_CHART_OR_SVG = re.compile(r'class="scroll chart"[^>]*aria-label="([^"]*)"|<svg\b[^>]*>')
_EPOCH = "SOURCE_DATE_EPOCH"
_PAPER = Path(__file__).parent / "templates" / "paper.css"


def pdf(page: str) -> bytes:
    """The page as a tagged PDF (PDF/UA-1), in A4, wide tables in landscape. Same page, same bytes.

    Args:
        page: The HTML of a report. Nothing beside it is read: of links to files or hosts none is
            followed.

    Raises:
        ConfigError: WeasyPrint or the libraries that it needs are not installed.
    """
    setting = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        from weasyprint import HTML  # noqa: PLC0415 - an extra
        from weasyprint.urls import URLFetcher  # noqa: PLC0415 - an extra
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"A PDF needs WeasyPrint, which does not start here ({error}). Install it with "
            "pip install 'fedaudit[pdf]'; it also needs the library Pango of the system "
            "(Debian: apt install libpango-1.0-0 libpangoft2-1.0-0). Without it: open report.html "
            "in a browser and print it."
        ) from error
    finally:  # its import has every image of this process read where the file is cut off
        ImageFile.LOAD_TRUNCATED_IMAGES = setting
    logger = logging.getLogger("weasyprint")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it reports rules of the screen, of no use on paper
    source = _titled(page).replace("</style>", _PAPER.read_text("utf-8") + "</style>", 1)
    document = HTML(string=source, url_fetcher=URLFetcher(allowed_protocols=("data",)))
    try:
        with _undated():
            content = document.write_pdf(pdf_variant="pdf/ua-1")
    finally:
        logger.setLevel(level)
    assert isinstance(content, bytes)
    return content


@contextmanager
def _undated() -> Iterator[None]:
    """No time is written: fontTools, which cuts fonts where HarfBuzz cannot, notes it in each."""
    before = os.environ.get(_EPOCH)
    os.environ[_EPOCH] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_EPOCH]


def _titled(page: str) -> str:
    """The page whose drawings have titles, which become their alternate texts."""
    chart = "drawing"

    def titled(found: re.Match[str]) -> str:
        nonlocal chart
        if found[1] is not None:
            chart = found[1].removesuffix(". The numbers follow in a table.")
            return found[0]
        own = re.search(r'aria-label="([^"]*)"', found[0])
        kind = re.search(r'class="([^"]*)"', found[0])
        words = own[1] if own else _DRAWINGS.get(kind[1], chart) if kind else chart
        return f"{found[0]}<title>{words}</title>"

    return _CHART_OR_SVG.sub(titled, page)
