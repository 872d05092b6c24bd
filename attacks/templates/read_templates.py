"""The templates among what was shared: where the server holds a vector for a face."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.closed_form.secure_sum import rows_of_sum
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters, SummedRows

KINDS = frozenset({ClassEmbeddings, ClusterCenters, SummedRows})
"""Kinds of shared things that hold templates."""


@dataclass(frozen=True)
class Templates:
    """Vectors in the embedding of the audited network, one a face.

    Attributes:
        rows: `[k, D]`, of any length.
        labels: `[k]` number of the class among the client's own; -1 where a row is of several.
    """

    rows: Tensor
    labels: Tensor


def read_templates(seen: Observation, limit: int) -> Templates:
    """The first `limit` templates that the observation holds.

    Raises:
        AttackError: None was shared.
    """
    rows: list[Tensor] = []
    labels: list[int] = []
    for sent in seen.shared:
        if isinstance(sent, ClassEmbeddings):
            vectors = sent.rows
        elif isinstance(sent, SummedRows):
            vectors = rows_of_sum(sent, seen.before)
        elif isinstance(sent, ClusterCenters):
            vectors = sent.centers
        else:
            continue
        rows += vectors
        of_class = not isinstance(sent, ClusterCenters)
        labels += range(len(vectors)) if of_class else [-1] * len(vectors)
    if not rows:
        raise AttackError(
            "no template to invert: the client shared no class embeddings and no cluster centers. "
            "Use an attack on updates, such as gan_inversion."
        )
    return Templates(torch.stack(rows[:limit]), torch.tensor(labels[:limit]))
