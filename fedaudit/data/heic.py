"""HEIC, the format in which iPhones keep photos: read where `pillow-heif` is installed."""

from functools import cache
from pathlib import Path

HEIC = frozenset({".heic", ".heif"})
HEIC_EXTRA = 'pip install "fedaudit[heic]"'


@cache
def reads_heic() -> bool:
    """Whether Pillow opens HEIC files, which it does from the first call on if it can."""
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - an extra
    except ImportError:
        return False
    register_heif_opener()
    return True


def is_unread_heic(file: Path) -> bool:
    """Whether a file is of that format by its name, and cannot be read here."""
    return file.suffix.lower() in HEIC and not reads_heic()
