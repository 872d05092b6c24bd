"""The work that a study's jobs ask for, in a form that can travel to a worker process."""

from dataclasses import dataclass

from fedaudit.config import Study
from fedaudit.reports.results import Evidence
from fedaudit.running.folder import RunFolder
from fedaudit.running.jobs import Job, TrainJob


@dataclass(frozen=True)
class Work:
    """Does one job of a study and leaves the result in the run folder."""

    study: Study
    folder: RunFolder
    evidence: Evidence
    device: str = "cpu"

    def __call__(self, job: Job) -> None:
        """Do it."""
        from fedaudit import audit  # noqa: PLC0415 - heavy, and only workers need it

        if isinstance(job, TrainJob):
            audit.run_train(self.study, job, self.folder)
        else:
            audit.run_cell(self.study, job.cell, self.folder, self.evidence, self.device)
