"""The study files in `examples/` can be run as they stand."""

from pathlib import Path

import pytest

from fedaudit.core.registry import names
from fedaudit.study.jobs import AttackJob, expand
from fedaudit.study.study_file import load_study

FILES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_loads_and_names_each_job_once(file: Path) -> None:
    jobs = expand(load_study(file))
    keys = [job.key for job in jobs]
    assert len(keys) == len(set(keys))
    assert any(isinstance(job, AttackJob) and job.cell.role == "audit" for job in jobs)


def test_every_method_of_ours_is_in_the_study_of_all() -> None:
    study = load_study(next(file for file in FILES if file.stem == "every_method"))
    used = {scenario.method.name for scenario in study.scenarios}
    ours = {"fedsgd", "fedavg", "fedprox", "privacyface", "private_projector", "fedgc", "fedface"}
    assert used >= ours | {"fedaffect", "solomon_woubie"}
    assert used <= set(names("methods"))
    assert all(scenario.controls for scenario in study.scenarios)
    # One sum shows everybody; what every client sends is attacked eight times.
    assert all(s.targets == (1 if s.name == "fedgc-secure" else 8) for s in study.scenarios)
    assert any(scenario.expose == ("update#2",) for scenario in study.scenarios)
    assert any(scenario.method.settings.get("secure") for scenario in study.scenarios)
