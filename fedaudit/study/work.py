"""The work that a study's jobs ask for, in a form that can travel to a worker process."""

from dataclasses import dataclass

from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.files import asset_store
from fedaudit.study.deciding_files import judge_assets, needed_assets
from fedaudit.study.jobs import AttackJob, FederationJob, Job, TrainJob
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of


@dataclass(frozen=True)
class Work:
    """Does one job of a study and leaves the result in the run folder."""

    study: Study
    folder: RunFolder
    evidence: Evidence
    device: str = "cpu"

    @property
    def assets(self) -> tuple[str, ...]:
        """What every machine must have: what jobs need, and what the judges that are here need."""
        source = source_of(self.study, self.folder).facts()
        judges = judge_assets(self.study) if source.gallery else ()
        here = (name for name in judges if asset_store.state(name) in asset_store.AT_HAND)
        return tuple(dict.fromkeys((*needed_assets(self.study, source), *here)))

    def prepare(self) -> None:
        """What attacks need first, made by a worker that has nothing else to do yet."""
        from fedaudit.study import run_cell  # noqa: PLC0415 - heavy, and only workers need it

        run_cell.judges_of(self.study, self.folder, self.study.scenarios[0])

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
