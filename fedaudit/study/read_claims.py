"""One question to a capture, a study, or a folder of configuration: what privacy is claimed?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.configured_claims import read_configuration
from fedaudit.captures.claims.protection_catalog import judge
from fedaudit.captures.claims.recorded_claims import recorded_verdicts
from fedaudit.captures.claims.stated_mechanism import RunSize, Value
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.stats.epsilon_bounds import require_small_delta
from fedaudit.study.defense_claims import defense_verdicts
from fedaudit.study.study_file import load_study


@dataclass(frozen=True)
class ClaimReport:
    """Privacy claims of a capture, study or configuration, each with its verdict.

    Attributes:
        source: Where, in words.
        verdicts: One for each protection that is stated.
        problems: Files that cannot be read.
    """

    source: str
    verdicts: tuple[ClaimVerdict, ...]
    problems: tuple[str, ...] = ()


def read_claims(
    path: Path,
    run: RunSize,
    *,
    values: Mapping[str, Value] | None = None,
    on_code: Callable[[tuple[str, ...]], None] = lambda names: None,
) -> ClaimReport:
    """The protections that `path` states, each with its verdict.

    Args:
        path: A capture, a study file, or a folder with an NVFlare job, a Flower app or Python.
        run: What is known beside what the files say, and counts where both know.
        values: Of settings that a file leaves to run time, by name.
        on_code: Takes the code that a study names before it is run; may refuse.

    Raises:
        UsageError: There is nothing of these, it cannot be read, or δ is larger than 1/n.
    """
    unit, units = ("image", run.images) if run.images else ("client", run.clients)
    if units:
        require_small_delta(run.delta, units, unit)
    if not path.exists():
        raise UsageError(
            f"there is no {str(path)!r}. Name a capture, a study file, or the folder of a job."
        )
    if (path / "capture.json").is_file():
        capture = StoredCapture(path)
        verdicts = recorded_verdicts(capture, run)
        return ClaimReport(f"capture {path}", verdicts, tuple(map(str, capture.problems)))
    if path.is_file() and path.suffix == ".toml":
        if path.name == "pyproject.toml":
            raise ConfigError(f"{path}: name the folder of the app, {path.parent}.")
        return ClaimReport(f"study {path}", defense_verdicts(load_study(path, on_code=on_code)))
    setup = read_configuration(path)
    run = run.filled(setup.size)
    return ClaimReport(
        f"{' and '.join(setup.frameworks)} files in {path}",
        tuple(judge(rule.supplied(values or {}), run) for rule in setup.mechanisms),
        setup.problems,
    )
