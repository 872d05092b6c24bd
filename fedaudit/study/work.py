"""The work that a study's jobs ask for, in a form that can travel to a worker process."""

from dataclasses import dataclass

from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.study.jobs import AttackJob, FederationJob, Job, TrainJob
from fedaudit.study.run_folder import RunFolder


@dataclass(frozen=True)
class Work:
    """Does one job of a study and leaves the result in the run folder."""

    study: Study
    folder: RunFolder
    evidence: Evidence
    device: str = "cpu"

    def __call__(self, job: Job) -> None:
        """Do it."""
        from fedaudit.study import run_cell  # noqa: PLC0415 - heavy, and only workers need it

        if isinstance(job, TrainJob):
            run_cell.run_train(self.study, job, self.folder)
        elif isinstance(job, AttackJob):
            run_cell.run_cell(self.study, job.cell, self.folder, self.evidence, self.device)
        elif isinstance(job, FederationJob) and job.asks == "inference":
            from fedaudit.study import run_inference  # noqa: PLC0415 - as above

            run_inference.run_inference(self.study, job, self.folder)
        elif isinstance(job, FederationJob):
            from fedaudit.study import canary_audit  # noqa: PLC0415 - as above

            canary_audit.run_canaries(self.study, job, self.folder)
