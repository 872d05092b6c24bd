"""Which executor a user asks for, by name, and what its jobs take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from fedaudit.core.errors import UsageError
from fedaudit.study.executors.in_process import InProcess
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.executors.pool import Executor, Resources, default_workers

Name = Literal["in-process", "processes", "ray", "slurm"]
EXECUTORS: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Place:
    """Where the jobs of a study are done, in the words of the command line.

    Attributes:
        executor: "in-process": one after another, here. "processes": of this machine. "ray": of a
            Ray cluster. "slurm": of a Slurm cluster.
        workers: How many jobs run at once; None for as many as there are cores for, on a GPU as
            many as share it.
        device: Where attacks compute; a torch device.
        resources: What a job takes.
        limit: Seconds that a job may take; None for no limit.
        address: Of a running Ray cluster; None starts one here.
        slurm: How to submit, as submitit names it, such as partition and time.
    """

    executor: Name = "processes"
    workers: int | None = None
    device: str = "cpu"
    resources: Resources = field(default_factory=Resources)
    limit: float | None = None
    address: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)

    def make(self) -> Executor:
        """The executor itself.

        Raises:
            UsageError: What it needs is not installed, or options do not go together.
        """
        if self.address is not None and self.executor != "ray":
            raise UsageError("--address is of a Ray cluster: add --executor ray, or leave it out.")
        if self.slurm and self.executor != "slurm":
            raise UsageError("--slurm says how to submit: add --executor slurm, or leave it out.")
        match self.executor:
            case "in-process":
                if (self.workers or 1) > 1 or self.resources.memory is not None:
                    raise UsageError(
                        "--executor in-process does one job at a time in its own process, whose "
                        "memory it cannot limit. Leave --workers and --cell-memory out, or choose "
                        "--executor processes."
                    )
                return InProcess(self.resources, self.limit)
            case "processes":
                return LocalProcesses(self._local(), self.resources, self.limit, self._cards())
            case "ray":
                from fedaudit.study.executors.ray import RayTasks  # noqa: PLC0415 - an extra

                return RayTasks(self.workers, self.resources, self.limit, self.address)
            case "slurm":
                from fedaudit.study.executors.slurm import SlurmArray  # noqa: PLC0415 - extra

                return SlurmArray(self.workers or 1, self.resources, self.limit, self.slurm)

    def _local(self) -> int:
        """Processes of this machine."""
        if self.workers:
            return self.workers
        if self.device != "cpu":
            return self._cards() * max(1, int(1 / (self.resources.gpu or 1)))
        return max(1, default_workers() // self.resources.cores)

    def _cards(self) -> int:
        """Cards among which processes are spread: all, where the device names none."""
        if self.device != "cuda":
            return 1
        import torch  # noqa: PLC0415 - seconds, and only a GPU needs it

        return max(1, torch.cuda.device_count())
