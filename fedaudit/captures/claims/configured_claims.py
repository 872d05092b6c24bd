"""What a folder of configuration says: an NVFlare job, a Flower app, or a script with Opacus."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaudit.captures.claims.nvflare_job import CLIENT, SERVER, client_filters, server_size
from fedaudit.captures.claims.python_source import mechanisms_in, rounds_in
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.core.errors import ConfigError, RunFolderError, UsageError
from fedaudit.files.regular_file import read_bytes

LARGEST = 2_000_000
"""Bytes of a file that is read."""
MOST = 5_000
"""Files of a folder."""
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "tests"})
ROUND_KEYS = ("num-server-rounds", "num_server_rounds", "num-rounds", "num_rounds", "rounds")


@dataclass(frozen=True)
class Configuration:
    """Protections and size of a run, as configuration files state them.

    Attributes:
        mechanisms: In the order of files and lines.
        size: Of the run, as far as the files say.
        files: How many were read.
        frameworks: Whose files they are: "NVFlare", "Flower", "Python".
        problems: Files that cannot be read, in words.
    """

    mechanisms: tuple[StatedMechanism, ...]
    size: RunSize
    files: int
    frameworks: tuple[str, ...]
    problems: tuple[str, ...]


def read_configuration(folder: Path) -> Configuration:
    """Look for protections in the files of a folder; nothing of it is imported or run.

    Raises:
        UsageError: It holds neither a job, nor an app, nor a script.
        ConfigError: The one job file in it is damaged or of another version.
    """
    config, clients = _app(folder)
    mechanisms: list[StatedMechanism] = []
    size, problems, frameworks, count = RunSize(), [], {}, 0
    if config is not None:
        frameworks["Flower"] = True
        rounds = next(
            (r for k in ROUND_KEYS if isinstance(r := config.get(k), int) and r > 0), None
        )
        size = RunSize(rounds=rounds, clients=clients)
    for path in _files(folder):
        name = str(path.relative_to(folder)) if folder.is_dir() else path.name
        count += 1
        try:
            text = _text(path, name)
            if path.name in CLIENT:
                frameworks["NVFlare"] = True
                mechanisms += client_filters(text, name)
            elif path.name in SERVER:
                frameworks["NVFlare"] = True
                size = size.filled(server_size(text, name))
            else:
                frameworks["Python"] = True
                mechanisms += mechanisms_in(text, name, config or {})
                size = size.filled(rounds_in(text, name, config or {}))
        except ConfigError as error:
            problems.append(str(error))
    if problems and not mechanisms and "NVFlare" in frameworks:
        raise ConfigError(problems[0])
    if not count and config is None:
        raise UsageError(
            f"{folder}: it holds no capture, no NVFlare job (config_fed_client.json), no Flower "
            "app (pyproject.toml) and no Python. Name the folder that does."
        )
    return Configuration(tuple(mechanisms), size, count, tuple(frameworks), tuple(problems))


def _app(folder: Path) -> tuple[Mapping[str, Any] | None, int | None]:
    """Configuration of a Flower app, flat, and its number of simulated clients; None of another."""
    path = folder / "pyproject.toml"
    try:
        table = tomllib.loads(_text(path, "pyproject.toml"))
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"pyproject.toml: {str(error)[:200]}. Correct it.") from error
    flower = _table(_table(_table(table, "tool"), "flwr"), "")
    if not flower:
        return None, None
    config = dict(_flat(_table(_table(flower, "app"), "config")))
    nodes = [
        _table(one, "options").get("num-supernodes")
        for one in _table(flower, "federations").values()
        if isinstance(one, Mapping)
    ]
    return config, next((n for n in nodes if isinstance(n, int) and n > 0), None)


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {}) if key else table
    return value if isinstance(value, Mapping) else {}


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys as Flower joins them: by dots."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _files(folder: Path) -> list[Path]:
    """Job files and Python, without links, hidden folders and installed packages."""
    if folder.is_file():
        return [folder]
    files: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise UsageError(f"{here}: {error.strerror or error}. Correct the path.") from error
        for entry in entries:
            if entry.is_symlink() or entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            if entry.is_dir():
                waiting.append(entry)
            elif entry.name in {*CLIENT, *SERVER} or entry.suffix == ".py":
                files.append(entry)
        if len(files) > MOST or len(waiting) > MOST:
            raise UsageError(f"{folder}: more than {MOST:,} files. Name the folder of the job.")
    return sorted(files)


def _text(path: Path, name: str) -> str:
    try:
        return read_bytes(path, LARGEST).decode()
    except RunFolderError as error:
        raise ConfigError(
            f"{name}: it cannot be read (larger than {LARGEST:,} bytes, or no regular file)."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: it is no UTF-8 text.") from error
