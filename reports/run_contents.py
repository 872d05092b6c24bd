"""What a run folder holds for a report beside its trials: galleries, utilities, an explanation.

A folder whose files do not fit together is refused as damaged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.core.measures import Utility
from fedaudit.core.scenario import Federation, Study
from fedaudit.federation.utility import pool_trainings
from fedaudit.files import regular_file
from fedaudit.reports.explanation import FILE as EXPLANATION
from fedaudit.reports.explanation import Explanation
from fedaudit.scoring.identity import Gallery, gallery_of_packed
from fedaudit.study.calibration import read_numbers
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import TrainJob, central_jobs, gallery_name, utility_jobs
from fedaudit.study.run_folder import MODELS, RunFolder
from fedaudit.study.stored_values import read_as


@contextmanager
def refuse_damage(path: Path) -> Iterator[None]:
    """Each file may be well-formed, with hashes that fit, and yet no run writes them together."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged: what its files say does not fit together "
            f"({type(error).__name__}: {str(error)[:200]}). Restore it from a backup, or run the "
            "study again with another --output. If nobody changed it, it is a fault of fedaudit: "
            "FEDAUDIT_DEBUG=1 shows where."
        ) from error


def read_explanation(folder: RunFolder) -> Explanation | None:
    """What `fedaudit why` left in the folder; None where it was not asked."""
    path = folder.path / EXPLANATION
    try:
        return read_as(Explanation, regular_file.read_json(path), path)
    except FileNotFoundError:
        return None
    except RunFolderError as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged. `fedaudit why` with the same study writes it again; a "
            "report without it: delete the file."
        ) from error


def read_galleries(folder: RunFolder, study: Study, judge: str = "") -> dict[str, Gallery | None]:
    """By scenario, the gallery of the first judge or of the one that is named."""
    return {
        scenario.name: _gallery(folder, study, study.federation_of(scenario), judge)
        for scenario in study.scenarios
    }


def _gallery(folder: RunFolder, study: Study, federation: Federation, judge: str) -> Gallery | None:
    name = gallery_name(study, federation, judge)
    pack = folder.shared_tensors(name)
    if pack is None and (folder.recipients or f"{name}.safetensors" in folder.removed):
        return read_numbers(folder.path, name)
    return None if pack is None else gallery_of_packed(pack, fmr=study.fmr)


def read_utilities(
    folder: RunFolder, study: Study, stock: Inventory
) -> Iterator[tuple[tuple[str, str], Utility]]:
    """What networks are worth by scenario and defense, of trainings that are done."""
    keys = set(stock.done)

    def of(jobs: tuple[TrainJob, ...]) -> list[Utility]:
        trainings = [_utility(folder, job.key) for job in jobs if job.key in keys]
        return [utility for utility in trainings if utility]

    for scenario in study.scenarios:
        central = of(central_jobs(study, scenario))
        for defense in scenario.defenses:
            if trainings := of(utility_jobs(study, scenario, defense)):
                yield (scenario.name, defense.label), pool_trainings(trainings, central)


def _utility(folder: RunFolder, key: str) -> Utility | None:
    """Utility that a training job measured; None where it was not measured."""
    value = folder.measured(key).get("utility")
    file = folder.files(MODELS, key)[0]
    return None if value is None else read_as(Utility, value, file)
