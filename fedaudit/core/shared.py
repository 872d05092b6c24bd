"""What one client sends, by kind; each kind is a frozen dataclass of tensors."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Update:
    """Model parameters as one client shares them.

    Attributes:
        kind: "gradient" (mean over the batch), or "delta" (local weights − global weights).
        tensors: By parameter name; only what was sent. What stayed on the device is not there.
        examples: Number of images it was computed on; None where it is not sent.
    """

    kind: Literal["gradient", "delta"]
    tensors: Mapping[str, Tensor]
    examples: int | None = None


@dataclass(frozen=True)
class ClusterCenters:
    """Noised centers of groups of class embeddings (PrivacyFace's DPLC).

    Attributes:
        centers: `[Q, D]`, unit rows.
        radius: Angle ρ in radians that a cluster spans.
    """

    centers: Tensor
    radius: float


@dataclass(frozen=True)
class Buffers:
    """Batch-norm buffers as one client shares them after local training; no defense acts on them.

    Attributes:
        tensors: Running means and variances by buffer name, and the counters of training steps
            (`NAME.num_batches_tracked`, from 0 in every round).
        examples: Number of images behind them; None where it is not sent.
    """

    tensors: Mapping[str, Tensor]
    examples: int | None = None


@dataclass(frozen=True)
class ClassEmbeddings:
    """Rows of the classification layer, one a person, as the people's own client sends them.

    Attributes:
        rows: `[k, D]`; a template of each person's face in the embedding of the shared network.
        owners: `[k]` number of each row's person among everybody's; the same in every round.
    """

    rows: Tensor
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Aggregate:
    """What a secure aggregator lets the server see: a weighted sum over clients, Σ w_k · t_k.

    Attributes:
        kind: Of what each client put in: as in `Update`, "buffers" as in `Buffers`, or "weights":
            values of parameters, not their changes.
        tensors: The sum, by name.
        weights: w_k of each client, in the order of the clients. They travel in clear in common
            protocols: 1 each, or each client's number of images.
    """

    kind: Literal["gradient", "delta", "weights", "buffers"]
    tensors: Mapping[str, Tensor]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class SummedRows:
    """Class embeddings of all clients as a secure aggregator lets the server see them.

    Each client puts in a matrix of everybody's rows, zeros in those that it has never received:
    the sum is Σ w_k · W_k, and of each row one client alone put in anything new.

    Attributes:
        total: `[P, D]`.
        owners: `[P]` number of the client that owns each row, by which the server sends it back.
        weights: w_k of each client; they travel in clear.
    """

    total: Tensor
    owners: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class MaskedVectors:
    """What clients send under secure aggregation: uniform numbers, each as likely as any other.

    Attributes:
        vectors: `[K, n]` int32, numbers modulo 2³², one row a client of the sum.
    """

    vectors: Tensor


class Shared(Protocol):
    """Anything that a client sends: a frozen dataclass whose tensors are fields, or in mappings.

    Its class is its kind, which attacks name in `reads`. Ours are above; a method in another
    package may share a kind of its own.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]


Returns = Sequence[tuple[Shared, ...]]
"""What each client sends in a round, in the order of the clients."""


def kind_of(shared: Shared) -> str:
    """What a kind of shared thing is called in studies, claims and reports.

    >>> import torch
    >>> kind_of(ClusterCenters(torch.ones(1, 2), 1.0))
    'cluster_centers'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(shared).__name__).lower()


def with_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """A copy of a frozen dataclass, mapping or tuple with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: with_tensors(item, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        values = {f.name: with_tensors(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **values)
    return tuple(with_tensors(v, change) for v in value) if isinstance(value, tuple) else value


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a frozen dataclass, mapping or tuple."""
    tensors: list[Tensor] = []
    with_tensors(value, tensors.append)
    return tensors
