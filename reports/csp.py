"""A Content-Security-Policy by hashes, so that a report opened from disk can run nothing else."""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256


def source_hash(content: str) -> str:
    """CSP source expression of an inline block, quotes included.

    Args:
        content: Exactly what stands between the tags; one more space changes the hash.

    >>> source_hash("alert('Hello, world.');")
    "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    """
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def policy(*, styles: Iterable[str], scripts: Iterable[str]) -> str:
    """Policy of a self-contained page: the given blocks, pictures in `data:`, nothing else.

    `frame-ancestors` is left out: browsers ignore it in a `<meta>` element, and say so in the log.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "style-src " + " ".join(map(source_hash, styles)),
            "script-src " + " ".join(map(source_hash, scripts)),
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
