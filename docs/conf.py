"""Settings of the documentation: `make docs` builds it into build/docs, without the network."""

import inspect
import re
from pathlib import Path

from sphinx.application import Sphinx

import fedaudit
from fedaudit.core.registry import lookup, names

project = "fedaudit"
author = "the fedaudit authors"
release = version = fedaudit.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"fedaudit {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
suppress_warnings = [
    "ref.python",  # a class and its re-export have one name
    "misc.highlighting_failure",  # "…" in examples
]
DOCS = Path(__file__).parent


def list_plugins(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the documentation of every registered plugin where a page says `PLUGINS: KIND`."""
    del app, page
    for kind in ("attacks", "defenses", "methods", "metrics", "networks", "data"):
        if (mark := f"PLUGINS: {kind}") in source[0]:
            source[0] = source[0].replace(mark, "\n".join(map(_entry, _own(kind))))


def _own(kind: str) -> list[tuple[str, object]]:
    found = [(name, lookup(kind, name)) for name in names(kind)]
    return [(name, one) for name, one in found if one.__module__.startswith("fedaudit.")]


def _entry(named: tuple[str, object]) -> str:
    name, part = named
    directive = "autoclass" if inspect.isclass(part) else "autofunction"
    path = f"{part.__module__}.{part.__qualname__}"  # type: ignore[attr-defined]
    return f"## {name}\n\n```{{eval-rst}}\n.. {directive}:: {path}\n```\n"


def name_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn links to files of the repository that are not pages into their names."""
    folder = Path(app.env.doc2path(page)).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(DOCS):
            return link[0]
        path = target.relative_to(DOCS.parent)
        if not target.exists():
            raise FileNotFoundError(f"{page}: {link[2]}")
        return f"`{path}`" if link[1] == path.stem else f"{link[1]} (`{path}`)"

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)", named, source[0])


def escape_bars(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """|x| is an absolute value, not a substitution."""
    del app, what, name, thing, options
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", name_files)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", list_plugins)
