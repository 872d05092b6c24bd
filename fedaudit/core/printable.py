"""Text of a stranger, as what can be stored and shown."""


def printable(text: str) -> str:
    """A stranger's text without anything that a terminal would obey."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
