"""Whether another machine can do a study's jobs: the same package, and the run folder in sight."""

import platform
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import RunFolderError, UsageError
from fedaudit.core.version import VERSION
from fedaudit.data.provenance import commit

MANIFEST = "study.json"
"""What every run folder has."""


@dataclass(frozen=True)
class NodeCheck:
    """What the process that gives out the jobs has, and every machine must have.

    Attributes:
        folder: The run folder, as an absolute path; None where jobs share none.
        version: Of the package.
        commit: Of its source, where it is a checkout.
        place: The folder in which the command was given, which relative paths are of.
    """

    folder: Path | None
    version: str = VERSION
    commit: str | None = None
    place: Path | None = None

    def __call__(self) -> None:
        """Refuse a machine that would compute something else, or write where nobody looks.

        Raises:
            UsageError: Another version of the package.
            RunFolderError: The folder is not the same there.
        """
        here = platform.node()
        if self.version != VERSION or (self.commit and commit() and self.commit != commit()):
            mine, theirs = _build(VERSION, commit()), _build(self.version, self.commit)
            raise UsageError(
                f"{here} has fedaudit {mine}, and this study is run by {theirs}: cells of both "
                f"would not be comparable. Install {theirs} there; what is finished is kept."
            )
        if self.place is not None and not self.place.is_dir():
            raise RunFolderError(
                f"{here} has no folder {str(self.place)!r}, in which the command was given: give "
                "it in a folder of a file system that all nodes mount at the same path."
            )
        if self.folder is not None and not (self.folder / MANIFEST).exists():
            raise RunFolderError(
                f"{here} does not see the run folder {str(self.folder)!r} as the process that "
                "gives out the cells does: it is not shared. Put --output on a file system that "
                "all nodes mount at the same path."
            )


def node_check(folder: Path | None) -> NodeCheck:
    """The check that this process asks of others."""
    absolute = None if folder is None else folder.absolute()
    return NodeCheck(absolute, commit=commit(), place=Path.cwd())


def _build(version: str, revision: str | None) -> str:
    return f"{version} ({revision[:12]})" if revision else version
