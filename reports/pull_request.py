"""A run in a page of Markdown, as a comment on a pull request."""

from fedaudit.core.printable import printable
from fedaudit.reports import columns
from fedaudit.reports.results import Results
from fedaudit.reports.text import CLOSING, verdict_name
from fedaudit.reports.view import not_shown

_SHOWN = 12
"""Findings that are listed."""
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"&#{ord(mark)};" for mark in "\\`*_[]|#@"}
)
"""All at once: one after another, "#" would be found in what "_" became."""


def pull_request(results: Results) -> str:
    """Verdict, findings, what was not tested, and the table of defenses."""
    headline = results.headline
    name = verdict_name(headline.kind, results.settings.reid_limit)
    severity = f" ({headline.severity})" if headline.severity != "none" else ""
    lines = [f"## {_plain(results.study)}: {name}{severity}", "", _plain(headline.sentence), ""]
    if results.findings:
        lines += ["| finding | severity | what | fingerprint |", "|---|---|---|---|"]
        lines += [
            f"| {f.id} | {f.severity} | {_plain(f.title)} | `{f.fingerprint}` |"
            for f in results.findings[:_SHOWN]
        ]
        if more := len(results.findings) - _SHOWN:
            lines += [f"| … | | {more} more | |"] if more > 0 else []
        lines.append("")
    row = None if results.headline_row is None else results.rows[results.headline_row]
    lines += ["Not shown by this:", *(f"- {_plain(point)}" for point in not_shown(results, row))]
    table = columns.markdown(results)
    lines += ["", "<details><summary>Every defense</summary>", "", table, "", "</details>"]
    return "\n".join([*lines, "", f"_{CLOSING}_", ""])


def _plain(text: str) -> str:
    """Text without meaning to Markdown or HTML."""
    return printable(text).translate(_ESCAPES)
