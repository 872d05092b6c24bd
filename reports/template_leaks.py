"""Leaks from templates: which attacks are on them, and what there is to say of each kind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedaudit.reports.comparison import Row

UPDATES = frozenset({"update", "aggregate", "buffers"})
"""Kinds of which a photo of the batch is rebuilt; the others are about people."""
ONE_OWNER = (
    "Put nothing into the sum that one client alone changes: share one head, or keep class "
    "embeddings on the device."
)


@dataclass(frozen=True)
class Lesson:
    """A title and a remedy of its own for leaks from one kind of shared thing.

    Attributes:
        title: What the finding is called; the defense follows.
        remedy: What to do, where no defense was measured to help.
    """

    title: str
    remedy: str


_BY_KIND: Mapping[str, Lesson] = {
    "class_embeddings": Lesson(
        "Class embeddings are templates: faces come back from them",
        "Keep class embeddings on the device, as a private head is kept; where a server must hold "
        "them, protect and delete them as the biometric templates that they are.",
    ),
    "cluster_centers": Lesson(
        "Cluster centers are templates of their members: faces come back from them",
        "Release fewer centers, each of more people (min_size), with more noise (a lower epsilon), "
        "and audit again.",
    ),
    "summed_rows": Lesson(
        "The secure sum does not hide rows of one owner: faces come back from them",
        ONE_OWNER,
    ),
}


def kind_of(artifact: str) -> str:
    """The kind of a thing that was sent: "update" of "update#2:body.0."."""
    return artifact.partition(":")[0].partition("#")[0]


def is_template(row: Row) -> bool:
    """Whether what the attack attacks tells of people, not of the photos of one batch."""
    m = row.measurement
    return m is not None and (
        m.of == "people" or bool({kind_of(name) for name in m.attacked} - UPDATES)
    )


def lesson_of(names: Iterable[str]) -> Lesson:
    """What there is to say of a template that leaks; of a package's kind, in general words."""
    kinds = sorted({kind_of(name) for name in names} - {"update", "buffers"})
    ours = [kind for kind in kinds if kind in _BY_KIND]
    if ours:
        return _BY_KIND[ours[0]]
    name = " + ".join(kinds) or "what was shared"
    return Lesson(
        f"Faces of people come back from {name}",
        f"Do not share {name}, or only in a form from which the attack no longer works; audit "
        "again.",
    )
