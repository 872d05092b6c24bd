"""JSON as NVFlare's job files write it: with comments, bare words, and `=` for `:`.

NVFlare reads `.conf` files as HOCON. What of it job files use is read here; what would fetch
something else (`include`, `${…}`) is refused. Nothing is run and nothing else is opened.
"""

import json
import re
from typing import Any

DEEPEST = 60
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+)
    |(?P<comment>(?:\#|//)[^\n]*)
    |(?P<line>\n)
    |(?P<quoted>"(?:[^"\\\n]|\\.)*")
    |(?P<mark>[{}\[\],:=])
    |(?P<bare>(?:(?!//)[^\s{}\[\],:="#])+(?:[ \t]+(?:(?!//)[^\s{}\[\],:="#])+)*)""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "null": None, "yes": True, "no": False}


def parse(text: str) -> Any:
    """What such a file holds, as plain data.

    Raises:
        ValueError: It is not of this form, refers to something else, or is nested too deeply.

    >>> parse('format_version = 2 // ours' + chr(10) + 'filters : [{ path = a.B, args {g: 0.1} }]')
    {'format_version': 2, 'filters': [{'path': 'a.B', 'args': {'g': 0.1}}]}
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    reader = _Reader(_tokens(text))
    content: Any
    if reader.next_mark("{"):
        content = reader.table("}")
    elif reader.next_mark("["):
        content = reader.list()
    else:
        content = reader.table("")
    reader.end()
    return content


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} cannot be read")
        at, kind = match.end(), str(match.lastgroup)
        if kind not in {"space", "comment"}:
            tokens.append((kind, match.group()))
    return tokens


class _Reader:
    """Walks over the tokens once."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def next_mark(self, mark: str) -> bool:
        """Whether the next token is this mark, and then past it."""
        self.skip_lines()
        if self.at < len(self.tokens) and self.tokens[self.at] == ("mark", mark):
            self.at += 1
            return True
        return False

    def skip_lines(self) -> None:
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "line":
            self.at += 1

    def end(self) -> None:
        self.skip_lines()
        if self.at < len(self.tokens):
            raise ValueError(f"{self.tokens[self.at][1][:40]!r} stands after its end")

    def word(self) -> Any:
        if self.at >= len(self.tokens):
            raise ValueError("it ends in the middle")
        kind, text = self.tokens[self.at]
        if kind not in {"quoted", "bare"}:
            raise ValueError(f"{text[:40]!r} stands where a value is expected")
        self.at += 1
        if kind == "quoted":
            return json.loads(text, strict=False)
        if "${" in text or "$" in text or text.startswith("include"):
            raise ValueError(
                f"{text[:40]!r} refers to something else, which is not followed. Write the value"
            )
        try:
            return _WORDS[text] if text in _WORDS else json.loads(text)
        except ValueError:
            return text

    def value(self) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        try:
            if self.next_mark("{"):
                return self.table("}")
            if self.next_mark("["):
                return self.list()
            return self.word()
        finally:
            self.depth -= 1

    def table(self, closing: str) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while True:
            while self.next_mark(","):
                pass
            if closing and self.next_mark(closing):
                return entries
            if not closing and self.at >= len(self.tokens):
                return entries
            name = str(self.word())
            opens = self.at < len(self.tokens) and self.tokens[self.at] == ("mark", "{")
            if not (self.next_mark(":") or self.next_mark("=") or opens):
                raise ValueError(f"{name[:40]!r} has no value")
            entries[name] = self.value()

    def list(self) -> list[Any]:
        items: list[Any] = []
        while not self.next_mark("]"):
            if not self.next_mark(","):
                items.append(self.value())
        return items
