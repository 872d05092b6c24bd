"""Every error that fedaudit raises on purpose.

    FedauditError                 exit code
    ├── UsageError                2   a name, an option or a file that the user can correct
    │   ├── UnknownNameError      2   nothing of that name; names the closest match
    │   ├── ConfigError           2   a study file that does not say what it must
    │   ├── DataError             2   faces that cannot be used
    │   ├── KnowledgeError        2   an attack needs a fact that its threat model denies
    │   └── CaptureError          2   a file of a client or server that cannot be used
    ├── AssetError                4   a file neither cached nor fetchable, or not what it claims
    ├── RunFolderError            4   a run of another version, a damaged cell
    ├── StorageError              4   no space, no permission
    └── AttackError               4   an attack, a defense or a model failed while it ran

Each message says what failed, why, and what to do next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FedauditError(Exception):
    """Base of the tree; `exit_code` is what the command line returns."""

    exit_code = 4


class UsageError(FedauditError):
    """Something that the user can correct in the command or the study."""

    exit_code = 2


FEW = 8
"""Names up to which all are shown beside the closest."""


class UnknownNameError(UsageError):
    """No plugin, option or asset of that name.

    Args:
        kind: What was looked up, in the singular ("attack").
        name: What the user wrote.
        known: The names that exist.
        where: The file and the place in it, if there is one.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = get_close_matches(name, self.known, n=1, cutoff=0.5)
        every = f"hoose from {', '.join(self.known)}."
        hint = f"did you mean {close[0]!r}?" if close else f"c{every}"
        if close and len(self.known) <= FEW:
            hint += f" C{every}"
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}unknown {kind} {name!r}: {hint}")


class ConfigError(UsageError):
    """A study file that does not say what it must."""


class DataError(UsageError):
    """Faces that cannot be used as they are."""


class KnowledgeError(UsageError):
    """An attack needs a fact that its threat model denies."""


class CaptureError(UsageError):
    """A file with tensors of a client or a server that cannot be used.

    `reason` is what is wrong and what to do; `key` the tensor, "" for the whole file.
    """

    def __init__(self, file: object, reason: str, *, key: str = "") -> None:
        name = str(file)
        self.file, self.reason, self.key = name if name.isprintable() else ascii(name), reason, key
        place = f"{_cut(key, 100)!r}: " if key else ""
        super().__init__(f"{self.file}: {place}{_cut(reason, 400)}")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


class AssetError(FedauditError):
    """A file that is neither cached nor fetchable, or is not what it claims to be."""


class RunFolderError(FedauditError):
    """A run folder of another version, or a damaged cell in it."""


class StorageError(FedauditError):
    """The disk is full or may not be written."""


class AttackError(FedauditError):
    """An attack, a defense or a model failed while it ran."""


def first_line(error: BaseException) -> str:
    """What an exception of other people's code says, in one line of at most 300 characters."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
