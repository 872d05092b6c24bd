"""Everything that the server saw of one client in one round: all that an attack is handed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fedaudit.core.shared import Aggregate, Buffers, Shared, Update, with_tensors
from fedaudit.core.training import BatchNormMode, LocalTraining

__all__ = ["DefenseFacts", "LocalTraining", "ModelSpec", "Observation"]


@dataclass(frozen=True)
class ModelSpec:
    """How to build a network: a registered name or `package.module:factory`, and its arguments."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DefenseFacts:
    """What is public about a defense: its name, its settings, and what it keeps on the device.

    `estimated` says that nobody stated it: the numbers of the updates show it.
    """

    name: str
    settings: Mapping[str, Any]
    withheld: tuple[str, ...] = ()
    estimated: bool = False


@dataclass(frozen=True)
class Observation:
    """Everything that the server saw of one client in one round, and the facts it was granted.

    A field is None where the threat model does not grant it. No path leads from here to `Secret`.

    Attributes:
        model: Architecture.
        before: The global parameters and running statistics of batch norm that the server sent;
            those that stay on devices are absent.
        shared: What the client sent.
        image_shape: `(C, H, W)`.
        batch_size: Number of images behind the update, over all local steps.
        num_classes: Width of the head.
        training: Local training settings.
        batch_norm: Mode in which batch norm trained, where that is stated and `training` is not
            known as a whole.
        defense: The defenses in use, in order; () says "known to be none", None "not known".
        labels: `[N]` int64.
        round: 1-based number of the round.
        client: Pseudonym of the client.
        statistics: Of all the client's images in one batch through the model before training, at
            each batch-norm layer's input: `NAME.mean` and `NAME.var` (biased), `[channels]` each.
        earlier: What the same client shared in earlier rounds, oldest first.
    """

    model: ModelSpec
    before: Mapping[str, Tensor]
    shared: tuple[Shared, ...]
    image_shape: tuple[int, int, int] | None = None
    batch_size: int | None = None
    num_classes: int | None = None
    training: LocalTraining | None = None
    defense: tuple[DefenseFacts, ...] | None = None
    labels: Tensor | None = None
    round: int = 1
    client: str = ""
    statistics: Mapping[str, Tensor] | None = None
    earlier: tuple["Observation", ...] = ()
    batch_norm: BatchNormMode | None = None

    @property
    def mode(self) -> LocalTraining | None:
        """Settings that say in which mode the network trained; None where nothing does.

        >>> Observation(ModelSpec("lenet"), {}, (), batch_norm="eval").mode.batch_norm
        'eval'
        """
        if self.training is not None or self.batch_norm is None:
            return self.training
        return LocalTraining(batch_size=self.batch_size or 1, batch_norm=self.batch_norm)

    def to(self, device: str) -> "Observation":
        """The same with every tensor on `device`."""
        names = ("before", "shared", "labels", "statistics", "earlier")
        copies = {n: with_tensors(getattr(self, n), lambda t: t.to(device)) for n in names}
        return replace(self, **copies)

    @property
    def update(self) -> Update | None:
        """The first model update among what was shared; of an aggregate, its mean.

        The mean over clients that weigh by their number of images (or weigh 1 and have one image
        each) is the update of one client that has everybody's images: attacks need no other case.
        """
        for payload in self.shared:
            if isinstance(payload, Update):
                return payload
            if isinstance(payload, Aggregate) and payload.kind in {"gradient", "delta"}:
                total = sum(payload.weights)
                mean = {name: value / total for name, value in payload.tensors.items()}
                return Update("gradient" if payload.kind == "gradient" else "delta", mean)
        return None

    @property
    def buffers(self) -> Buffers | None:
        """The batch-norm buffers among what was shared."""
        return next((s for s in self.shared if isinstance(s, Buffers)), None)
