"""Whether another machine can do a study's jobs: same package and assets, the folder in sight."""

import platform
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import AssetError, RunFolderError, UsageError
from fedaudit.core.version import VERSION
from fedaudit.data.provenance import commit
from fedaudit.files import asset_store
from fedaudit.study.executors.pool import Work

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
        assets: What the study needs of models and data, as `asset_store` names it.
    """

    folder: Path | None
    version: str = VERSION
    commit: str | None = None
    place: Path | None = None
    assets: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Refuse a machine that would compute something else, or write where nobody looks.

        Raises:
            AssetError: It neither has nor can fetch an asset. As a failure of cells it would be one
                of most: whoever fails at once takes the next, while others compute.
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
        for name in self.assets:
            try:
                asset_store.path(name)
            except AssetError as error:
                raise AssetError(
                    f"{here} has not all that this study needs, and takes no cells; what is "
                    f"finished is kept. `fedaudit assets fetch` there gets it: {error}"
                ) from error


def node_check(folder: Path | None, work: Work) -> NodeCheck:
    """The check that this process asks of others before they do a work."""
    absolute = None if folder is None else folder.absolute()
    assets = getattr(work, "assets", ())
    return NodeCheck(absolute, commit=commit(), place=Path.cwd(), assets=assets)


def _build(version: str, revision: str | None) -> str:
    return f"{version} ({revision[:12]})" if revision else version
