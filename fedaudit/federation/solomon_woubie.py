"""Solomon & Woubie: FedAvg with a face verifier, to a server or to a secure aggregator."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.core.claims import Gap
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import ModelSpec
from fedaudit.data.composites import composite_faces
from fedaudit.data.splits import Split
from fedaudit.defenses.settings import require
from fedaudit.defenses.weighted_sum import sum_securely
from fedaudit.federation.contrastive import train_without_labels
from fedaudit.federation.local_training import train_locally
from fedaudit.models.method_heads import spec_with_head
from fedaudit.models.soft_labels import most_likely, probabilities

GRAYNESS = Gap("grayness", "imposters are gray where every photo is, so that one in color shows")


@dataclass(frozen=True, kw_only=True)
class SolomonWoubie:
    """FedAvg of a face verifier, supervised with generated imposters or without labels.

    Solomon, Woubie et al. (2024, arXiv 2403.05344). The variants are the paper's; their losses are
    not stated in its abstract and are our choice. Supervised: a classifier of everybody and one
    class more, the imposter, of faces that each device draws from a generator anew in every round;
    they are images behind the update as much as the client's photos are. Unsupervised: a contrast
    between two fixed views of each photo (`fedaudit.models.method_heads.TwoViews`), no labels and
    no head. The device's generator is the stock face generator, not one trained on the device.

    Shared: the weight delta of the full network, and the number of images, imposters among them.
    With a secure aggregator the server sees one weighted sum of these over all clients and the
    clients' numbers of images, and nothing of one client alone.

    Args:
        supervised: Train a classifier; otherwise without labels.
        secure: Put a secure aggregator between clients and server.
        imposters: Faces drawn by each client in each round, if supervised; ≥ 0.
    """

    supervised: bool = True
    secure: bool = False
    imposters: int = 4

    aggregate = staticmethod(sum_securely)

    def __post_init__(self) -> None:
        require(self.imposters >= 0, "imposters must be ≥ 0", self.imposters)

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with a class for imposters, or with the loss between two views."""
        if not self.supervised:
            return spec_with_head(spec, "two_views", {})
        classes = spec.arguments["classes"] + 1
        return replace(spec, arguments={**spec.arguments, "classes": classes})

    def client(self, task: ClientTask) -> ClientReturn:
        """Train on photos and imposters, or on photos without labels; share everything."""
        if not self.supervised:
            return train_without_labels(task, change=False)
        if not self.imposters:
            return train_locally(task)
        # Where a defense makes several images of each photo, an imposter weighs as much as a photo.
        imposters = self.drawn(task).repeat_interleave(task.copies, 0)
        imposter = torch.full((len(imposters),), task.model.arguments["classes"] - 1)
        labels = most_likely(task.labels)
        both = (task.labels, imposter)
        if task.labels.dim() > 1:
            both = (probabilities(task.labels, int(imposter[0]) + 1), probabilities(imposter))
        joint = replace(task, images=torch.cat([task.images, imposters]), labels=torch.cat(both))
        reply = train_locally(joint)
        return replace(
            reply,
            labels=torch.cat([labels, imposter]),
            unnoised=(*reply.unnoised, GRAYNESS),
        )

    def drawn(self, task: ClientTask) -> Tensor:
        """Imposters `[imposters, C, H, W]`, gray where the client's photos are gray."""
        gray = bool((task.images == task.images[:, :1]).all())
        names = torch.randint(2**31, (self.imposters,), generator=task.generator).tolist()
        _, channels, height, width = task.images.shape
        shape = (channels, height, width)
        faces = composite_faces(tuple(map(str, names)), shape, grayscale=gray)
        return faces.to(task.images)
