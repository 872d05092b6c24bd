"""The report on paper: tagged, nothing fetched, and a clear word where the extra is missing."""

import builtins
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample import page

from fedaudit.core.errors import ConfigError
from fedaudit.reports.pdf import pdf

# Not `importorskip`, whose import, outside `pdf`, would have this process read cut-off photos.
with_weasyprint = pytest.mark.skipif(find_spec("weasyprint") is None, reason="no weasyprint")

_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6"
    "kgAAAABJRU5ErkJggg=="
)


def _unpacked(written: bytes) -> bytes:
    """The bytes of a PDF with all that is packed in it."""
    packed = re.findall(rb"stream\n(x.*?)\nendstream", written, re.DOTALL)
    return written + b"".join(zlib.decompressobj().decompress(part) for part in packed)


@pytest.mark.slow  # 15 s: lays the page out twice
@with_weasyprint
def test_the_page_is_a_tagged_pdf_and_again_the_same_bytes() -> None:
    written = pdf(page("full"))
    assert written.startswith(b"%PDF-")
    for part in (b"/MarkInfo", b"/StructTreeRoot", b"/Lang", b"pdfuaid"):
        assert part in _unpacked(written), part
    figures = re.findall(rb"<<[^\n]*?/S /Figure[^\n]*", _unpacked(written))
    assert len(figures) > 20
    assert all(b"/Alt (" in one or b"/Alt <" in one for one in figures), "a drawing has no words"
    headers = re.findall(rb"/S /T[DH][^\n]*", _unpacked(written))
    assert sum(b"/Headers [" in one for one in headers) > 100, "cells do not name their heads"
    assert pdf(page("full")) == written


@with_weasyprint
def test_nothing_outside_the_page_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b64decode(_PNG.partition(",")[2]))
    for source, shown in ((_PNG, True), (secret.as_uri(), False)):
        html = f"<html lang='en'><title>t</title><style></style><img alt='a' src='{source}'></html>"
        assert (b"/Subtype /Image" in _unpacked(pdf(html))) is shown, source


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(
        name: str,
        outer: Mapping[str, object] | None = None,
        inner: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if name.startswith("weasyprint"):
            raise ImportError("No module named 'weasyprint'")
        return known(name, outer, inner, wanted, level)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'fedaudit\[pdf\]'"):
        pdf("<p>")


@with_weasyprint
def test_a_photo_that_is_cut_off_is_refused_afterwards_too() -> None:
    program = (
        "from PIL import ImageFile\n"
        "from fedaudit.reports.pdf import pdf\n"
        "pdf('<html lang=\"en\"><title>t</title><style></style><p>text</p></html>')\n"
        "assert 'weasyprint' in __import__('sys').modules\n"
        "assert not ImageFile.LOAD_TRUNCATED_IMAGES\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
