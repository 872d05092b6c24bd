"""Build the sdist and the wheel, install the wheel where the checkout is out of reach, and use it.

    python tests/try_wheel.py          dependencies: those of this environment
    python tests/try_wheel.py --full   dependencies: installed anew, as a user's pip would

`make wheel` runs it. An editable install hides a forgotten subpackage or template; this does not.
"""
# ruff: noqa: T201

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

PROBE = """
import importlib, importlib.metadata, importlib.resources, json, pkgutil
import fedaudit
names = ["fedaudit", *(m.name for m in pkgutil.walk_packages(fedaudit.__path__, "fedaudit."))]
for name in names:
    importlib.import_module(name)
def absent(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return True
    return False
files = importlib.resources.files
print(json.dumps({
    "place": fedaudit.__file__,
    "modules": names,
    "templates": [f.name for f in files("fedaudit.reports").joinpath("templates").iterdir()],
    "typed": files("fedaudit").joinpath("py.typed").is_file(),
    "bare": [name for name in ("attacks", "defenses", "reports") if not absent(name)],
}))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit with 1 and a sentence where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="install the dependencies anew")
    full = parser.parse_args(arguments).full
    with tempfile.TemporaryDirectory(prefix="try-wheel-") as name:
        place = Path(name).resolve()
        wheel = build(place / "dist")
        check_contents(wheel)
        binaries = install(wheel, place / "venv", full=full)
        work = place / "elsewhere"
        work.mkdir()
        check_modules(binaries, place, work)
        check_command(binaries, work)
    print("the wheel is fine")


def build(dist: Path) -> Path:
    """The wheel, built from the sdist, so that both are tried."""
    step("build the sdist, and the wheel from it")
    run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], ROOT)
    sdists, wheels = sorted(dist.glob("*.tar.gz")), sorted(dist.glob("*.whl"))
    expect(len(sdists) == len(wheels) == 1, f"one sdist and one wheel, not {sdists + wheels}")
    for file in (*sdists, *wheels):
        print(f"  {file.name}  {file.stat().st_size / 1e3:.0f} kB")
    return wheels[0]


def check_contents(wheel: Path) -> None:
    """Nothing but `fedaudit/` and its metadata lands in site-packages."""
    step("look into the wheel")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    version = PROJECT["project"]["version"]
    expect(tops == {"fedaudit", f"fedaudit-{version}.dist-info"}, f"only fedaudit/, not {tops}")
    expect(any(name.endswith("licenses/LICENSE") for name in names), "the license inside")
    inside = {name for name in names if name.startswith("fedaudit/")}
    missing, more = wanted_files() - inside, inside - wanted_files()
    expect(not missing, f"every file of the packages; missing: {sorted(missing)}")
    expect(not more, f"nothing else; found: {sorted(more)}")
    print(f"  {len(inside)} files")


def wanted_files() -> set[str]:
    """What the four folders hold, under the names that the wheel gives them."""
    wanted = set()
    for top, name in (
        ("fedaudit", "fedaudit"),
        ("attacks", "fedaudit/attacks"),
        ("defenses", "fedaudit/defenses"),
        ("reports", "fedaudit/reports"),
    ):
        # Links are not followed: the three root folders stand under their own names here.
        for folder, folders, files in os.walk(ROOT / top):
            folders[:] = [f for f in folders if f != "__pycache__"]
            below = Path(folder).relative_to(ROOT / top)
            wanted |= {str(Path(name, below, file).as_posix()) for file in files}
    return wanted


def install(wheel: Path, place: Path, *, full: bool) -> Path:
    """A fresh environment that holds the wheel; returns its folder of programs."""
    step("install it into a fresh environment")
    venv.create(place, with_pip=True)
    scheme = {"base": str(place), "platbase": str(place)}
    binaries = Path(sysconfig.get_path("scripts", "venv", scheme))
    options = ["--quiet", "--disable-pip-version-check", *([] if full else ["--no-deps"])]
    run([str(binaries / "python"), "-m", "pip", "install", *options, str(wheel)], place)
    if not full:
        # Appended to sys.path, so the wheel comes first; .pth files in there, such as the one that
        # makes the checkout importable, are not read.
        packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def check_modules(binaries: Path, place: Path, work: Path) -> None:
    """Import everything, away from the checkout."""
    step("import every module")
    found = json.loads(run([str(binaries / "python"), "-c", PROBE], work))
    expect(Path(found["place"]).resolve().is_relative_to(place), f"the wheel, not {found['place']}")
    expect(not found["bare"], f"no bare name, but these can be imported: {found['bare']}")
    expect(found["typed"], "py.typed")
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in wanted_files()
        if name.endswith(".py")
    }
    expect(set(found["modules"]) == modules, f"all of {sorted(modules ^ set(found['modules']))}")
    templates = {file.name for file in (ROOT / "reports/templates").iterdir()}
    expect(set(found["templates"]) == templates, f"the templates, not {found['templates']}")
    print(f"  {len(modules)} modules, {len(templates)} templates")


def check_command(binaries: Path, work: Path) -> None:
    """The command line does what needs no faces."""
    step("run the command")

    def fedaudit(*arguments: str) -> str:
        print(f"  fedaudit {' '.join(arguments)}")
        return run([str(binaries / "fedaudit"), *arguments], work)

    version = fedaudit("--version").split()
    expect(version == ["fedaudit", PROJECT["project"]["version"]], f"the version, not {version}")
    expect("Usage: fedaudit" in fedaudit("--help"), "a help text")
    for kind in ("attacks", "defenses"):
        listed = {one["name"] for one in json.loads(fedaudit("list", kind, "--json"))}
        declared = set(PROJECT["project"]["entry-points"][f"fedaudit.{kind}"])
        expect(listed == declared, f"the {kind} {sorted(declared)}, not {sorted(listed)}")
    expect("properties" in json.loads(fedaudit("schema", "results")), "a JSON schema")
    (work / "study.toml").write_text('name = "try"\n[[scenario]]\nname = "fresh"\n')
    expect("to do" in fedaudit("run", "study.toml", "--dry-run"), "a plan")


def run(command: Sequence[str], folder: Path) -> str:
    """Standard output of a program that must succeed; the checkout is not on its path."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        sys.exit(f"FAILED with {done.returncode}: {' '.join(command)[:200]}")
    return done.stdout


def step(what: str) -> None:
    """Announce it."""
    print(f"– {what}", flush=True)


def expect(fine: bool, what: str) -> None:
    """Stop where it is not fine."""
    if not fine:
        sys.exit(f"FAILED: expected {what}")


if __name__ == "__main__":
    main()
