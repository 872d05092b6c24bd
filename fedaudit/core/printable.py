"""Text of a stranger, as what can be stored and shown."""

from collections.abc import Collection

NBSP = "\u00a0"
"""A space that breaks no line, as reports put between numbers and units."""


def printable(text: str) -> str:
    """A stranger's text without anything that a terminal would obey."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == NBSP else f"\\x{ord(c):02x}" for c in safe)


def printable_lines(text: str, longest: int | None = None) -> str:
    """As `printable`, but with line breaks and tabs; cut where it is longer than `longest`."""
    safe = "".join(c if c in "\n\t" else printable(c) for c in text)
    return safe if longest is None or len(safe) <= longest else safe[: longest - 1] + "…"


def printable_json(text: str) -> str:
    """JSON of the same meaning, without anything raw that a terminal would obey."""

    def escaped(c: str) -> str:
        codes = c.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{codes[n : n + 2].hex()}" for n in range(0, len(codes), 2))

    return "".join(c if c.isprintable() or c == "\n" else escaped(c) for c in text)


def first_few(names: Collection[str], most: int = 3, *, quote: bool = False) -> str:
    """The first `most` of names, with commas between them, and how many more there are.

    >>> first_few(["ada", "bob", "cleo"], 2)
    'ada, bob and 1 more'
    """
    text = ", ".join(repr(name) if quote else name for name in list(names)[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
