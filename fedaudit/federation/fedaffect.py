"""FedAffect: expressions from a few labelled photos, and many without labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import DataError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Returns, Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.defenses.settings import require
from fedaudit.federation.aggregation import mean_update
from fedaudit.federation.contrastive import train_without_labels
from fedaudit.federation.local_training import train_locally
from fedaudit.models.method_heads import spec_with_head

HEAD = "head."


@dataclass(frozen=True, kw_only=True)
class FedAffect:
    """A few labelled photos train the whole network, many unlabelled ones the extractor alone.

    Shome & Kar et al. (ICCV Workshops 2021), few-shot federated learning of facial expressions. In
    each round a client starts twice from the network that it received: once on its labelled photos,
    with all weights, and once on the others, without labels and without the head. The server
    averages the two disjointly and adds both to the network. The paper's objective without labels
    is not public: here it is SimCLR's (Chen et al., ICML 2020) between two fixed views of photos
    that the client shifts and relights at random (`contrastive`). The classes are
    the face set's expressions, or the names of its folders where it states no expressions.

    Shared: the weight delta of the full network from the labelled photos, and their number; then
    the weight delta of the extractor (everything but the head) from the unlabelled photos, and
    their number. Batch-norm buffers come from the labelled photos.

    Args:
        shots: Labelled photos of each class a client; ≥ 1.
        unlabelled_weight: Factor of the unlabelled delta in the server's sum; ≥ 0.
    """

    shots: int = 2
    unlabelled_weight: float = 1.0

    def __post_init__(self) -> None:
        require(self.shots >= 1, "shots must be at least 1", self.shots)
        weight = self.unlabelled_weight
        require(weight >= 0, "unlabelled_weight must be ≥ 0", weight)

    def classes(self, faces: FaceSet) -> tuple[str, ...] | None:
        """The expressions, if the set states them."""
        return faces.expressions or None

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a split in which a client has no photos beyond the labelled ones."""
        classes = self.classes(faces) or faces.people
        for client, photos in enumerate(split.photos):
            names = sorted({classes[i] for i in photos})
            labels = torch.tensor([names.index(classes[i]) for i in photos])
            rest = len(photos) - len(self.labelled(labels))
            if rest < 2:
                raise DataError(
                    f"FedAffect learns from unlabelled photos, and client {client} has {rest}: "
                    f"shots = {self.shots} labels {len(photos) - rest} of its {len(photos)}. "
                    "Lower shots, or raise [federation] photos."
                )

    def labelled(self, labels: Tensor) -> Tensor:
        """Indices of the first `shots` photos of each class, whose labels are used."""
        before = (labels[:, None] == labels[None, :]).tril(-1).sum(1)
        return (before < self.shots).nonzero().flatten()

    def client(self, task: ClientTask) -> ClientReturn:
        """Both stages from the received network, each with its own update."""
        if task.unlabelled is None or not len(task.unlabelled):
            raise DataError(
                "FedAffect learns from unlabelled photos, and this client has none beside the "
                f"{len(task.images)} labelled ones. Lower batch_size or shots, or raise "
                "[federation] photos."
            )
        reply = train_locally(task)
        extractor = {n: t for n, t in task.before.items() if not n.startswith(HEAD)}
        local = {n: t for n, t in task.kept.items() if not n.startswith(HEAD)}
        alone = replace(
            task,
            model=spec_with_head(task.model, "two_views", {}),
            before=extractor,
            kept=local,
            images=task.unlabelled,
        )
        second = next(
            s for s in train_without_labels(alone, change=True).shared if isinstance(s, Update)
        )
        return replace(reply, shared=(*reply.shared, second))

    def absorb(
        self, server: Mapping[str, Tensor], returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """The extractor after both stages: both mean deltas are added to it."""
        both = [[s for s in shared if isinstance(s, Update)] for shared in returns]
        first = mean_update([updates[0] for updates in both])
        second = mean_update([updates[1] for updates in both])
        return {
            name: server[name] + first[name] + self.unlabelled_weight * change
            for name, change in second.items()
        }
