"""What is shipped, and what the repository says of itself: packages, words, README."""

import ast
import fnmatch
import functools
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from pathlib import Path
from typing import Any

import click
import pytest

import fedaudit
from fedaudit.cli import cli
from fedaudit.files.asset_table import ASSETS
from fedaudit.study.study_file import load_study

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
GROUPS: dict[str, dict[str, str]] = PROJECT["project"]["entry-points"]
PACKAGES: list[str] = SETUPTOOLS["packages"]
TOPS = ("attacks", "defenses", "reports")


def folder_of(package: str) -> Path:
    """Where a package's files stand; the three links are not followed."""
    _, *parts = package.split(".")
    return ROOT.joinpath(*(parts if parts and parts[0] in TOPS else ["fedaudit", *parts]))


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every text file of the repository, links left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, or no git")
    found = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(p for p in found if p.is_file() and not p.is_symlink() and is_text(p))


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:8192]


def lines_with(pattern: str, paths: Iterable[Path]) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if found.search(line)
    ]


# --- what is shipped ------------------------------------------------------------------------------


def test_every_subpackage_is_listed() -> None:
    """An editable install finds what is not listed; the wheel would lack it."""
    walked = pkgutil.walk_packages(fedaudit.__path__, "fedaudit.")
    found = sorted(["fedaudit", *(m.name for m in walked if m.ispkg)])
    assert found == PACKAGES


def test_no_module_lies_outside_the_packages() -> None:
    """A folder without `__init__.py` is importable here, and not shipped."""
    shipped = {folder_of(package) for package in PACKAGES}
    for top in ("fedaudit", *TOPS):
        for folder, folders, files in os.walk(ROOT / top):
            folders[:] = [name for name in folders if name != "__pycache__"]
            if any(name.endswith(".py") for name in files):
                assert Path(folder) in shipped


def test_every_data_file_is_listed() -> None:
    data: dict[str, list[str]] = SETUPTOOLS["package-data"]
    homes = {folder_of(package): patterns for package, patterns in data.items()}
    for path in tracked():
        home = next((h for h in homes if path.is_relative_to(h)), None)
        if home and path.suffix != ".py":
            name = path.relative_to(home).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in homes[home]), path
    assert (ROOT / "fedaudit" / "py.typed").is_file()


@pytest.mark.parametrize("top", TOPS)
def test_links_and_folders_agree(top: str) -> None:
    assert os.readlink(ROOT / "fedaudit" / top) == f"../{top}"
    assert SETUPTOOLS["package-dir"][f"fedaudit.{top}"] == top


@pytest.mark.parametrize("top", TOPS)
def test_the_bare_name_is_refused(top: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {top}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"ImportError: import fedaudit.{top}, not {top}" in done.stderr


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [(group, name, value) for group, points in GROUPS.items() for name, value in points.items()],
)
def test_entry_points_resolve(group: str, name: str, value: str) -> None:
    assert callable(EntryPoint(name, value, group).load())


@pytest.mark.parametrize("group", GROUPS)
def test_entry_points_are_installed(group: str) -> None:
    ours = {p.name: p.value for p in entry_points(group=group) if p.value.startswith("fedaudit.")}
    assert ours == GROUPS[group], "pyproject.toml is newer than the installation: run make check"


def test_the_command_resolves() -> None:
    assert callable(
        EntryPoint("fedaudit", PROJECT["project"]["scripts"]["fedaudit"], "console_scripts").load()
    )
    assert PROJECT["project"]["version"] == fedaudit.__version__


def test_every_import_is_a_declared_dependency() -> None:
    """What only the `dev` extra or another dependency brings would be missing at a user's.

    What another extra brings may be imported by the module of its name alone.
    """
    declared = names_of(PROJECT["project"]["dependencies"])
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    brought_by = packages_distributions()
    undeclared = set()
    for package in PACKAGES:
        for path in folder_of(package).glob("*.py"):
            extra = names_of(extras[path.stem]) if path.stem in set(extras) - {"dev"} else set()
            for module in imports(path):
                if module not in sys.stdlib_module_names and module != "fedaudit":
                    found = brought_by.get(module, [module])
                    brings = {name.lower().replace("_", "-") for name in found}
                    if not brings & (declared | extra):
                        undeclared.add((path.name, module))
    assert not undeclared


@pytest.mark.parametrize("extra", ["flower", "nvflare"])
def test_every_extra_has_its_module_and_is_tested(extra: str) -> None:
    assert (ROOT / "fedaudit" / "captures" / "record" / f"{extra}.py").is_file()
    (own,) = (
        line
        for line in PROJECT["project"]["optional-dependencies"]["dev"]
        if line.startswith("fedaudit[")
    )
    assert extra in re.findall(r"\w+", own.removeprefix("fedaudit"))


def names_of(requirements: Iterable[str]) -> set[str]:
    names = (re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements)
    return {name.lower().replace("_", "-") for name in names}


def imports(path: Path) -> Iterator[str]:
    """Top-level names that a module imports absolutely."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


# --- what the repository says ---------------------------------------------------------------------


def test_no_file_names_a_registry_host_or_a_place_on_one_machine() -> None:
    """Machines reach registries through their own mirrors; pip and npm know the address."""
    hosts = (r"py[p]i\.org", r"npm[j]s\.(org|com)", r"python[h]osted", r"download\.py[t]orch")
    places = r"(?<![\w.])/(wo[r]k/|ro[o]t/|ho[m]e/\w)"
    assert lines_with("|".join((*hosts, places)), tracked()) == []


def test_american_spelling() -> None:
    british = (
        *("cent[r]e", "normali[s]", "optimi[s]e", "optimi[s]a", "colo[u]r", "defen[c]e"),
        *("behavio[u]r", "neighbo[u]r", r"analy[s]e\b", "favo[u]r"),
    )
    ours = [path for path in tracked() if path.suffix in {".py", ".md"}]
    assert lines_with(f"(?i){'|'.join(british)}", ours) == []


@pytest.mark.parametrize("top", ["attacks", "defenses"])
def test_one_idea_a_file(top: str) -> None:
    for path in (ROOT / top).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


# --- what the README promises ---------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, block in BLOCKS
    if language == "console"
    for line in block.splitlines()
]


def test_readme_study_can_be_loaded(tmp_path: Path) -> None:
    toml = [block for language, block in BLOCKS if language == "toml"]
    studies = [block for block in toml if "[[scenario]]" in block]
    assert studies
    for number, block in enumerate(studies):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert load_study(file).scenarios


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("fedaudit ")])
def test_readme_commands_can_be_parsed(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    context = click.Context(cli)
    chosen = cli.get_command(context, name)
    assert chosen is not None
    chosen.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_readme_make_targets_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:.*##", makefile, re.MULTILINE)


@pytest.mark.parametrize("asset", ASSETS)
def test_readme_names_every_asset(asset: str) -> None:
    assert f"`{asset}`" in README
    assert ASSETS[asset].package in README


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            place = (path.parent / target).resolve()
            assert place.exists(), f"{document} → {target}"


def test_version_is_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{fedaudit.__version__}]" in changelog
