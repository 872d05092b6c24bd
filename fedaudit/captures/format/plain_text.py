"""A stranger's text, as what can be stored and shown."""


def plain(text: str) -> str:
    """A stranger's text as what can be stored and shown: nothing that a terminal would obey."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
