"""The report as a PDF for people who print, file or sign it; needs the extra `fedaudit[pdf]`."""

import logging
from pathlib import Path

from PIL import ImageFile

from fedaudit.core.errors import ConfigError

_PAPER = Path(__file__).parent / "templates" / "paper.css"


def pdf(page: str) -> bytes:
    """The page as a tagged PDF (PDF/UA-1), in A4, wide tables in landscape. Same page, same bytes.

    Args:
        page: The HTML of a report. Nothing beside it is read: of links to files or hosts none is
            followed.

    Raises:
        ConfigError: WeasyPrint or the libraries that it needs are not installed.
    """
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
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
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    logger = logging.getLogger("weasyprint")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it reports rules of the screen, of no use on paper
    styled = page.replace("</style>", _PAPER.read_text("utf-8") + "</style>", 1)
    document = HTML(string=styled, url_fetcher=URLFetcher(allowed_protocols=("data",)))
    try:
        written = document.write_pdf(pdf_variant="pdf/ua-1")
    finally:
        logger.setLevel(level)
    assert isinstance(written, bytes)
    return written
