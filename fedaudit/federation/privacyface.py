"""PrivacyFace: clients also share noised centers of clusters of their people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import ClusterCenters, Returns
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split, require_one_client_each
from fedaudit.defenses.dplc import DPLC, HEAD
from fedaudit.federation.local_training import train_locally
from fedaudit.models.method_heads import spec_with_head

REMOTE = "clusters.centers"


@dataclass(frozen=True, kw_only=True)
class PrivacyFace:
    """FedAvg of the backbone; others' noised cluster centers are negatives in each client's loss.

    Meng et al. (ICLR 2022, arXiv 2201.12467). Each client trains a head of its own, releases noised
    centers of clusters of its class embeddings (`fedaudit.defenses.dplc.DPLC`, settings as there),
    and receives those of the other clients. The consensus-aware loss, as recalled in the
    literature, adds each of them to the softmax denominator with the logit s·cos(max(θ − ρ, 0)).
    That the guarantee covers the centers only, and that ε grows with the rounds, is derived. At
    ε = 1 the mean of six rows, of length 1 at most, carries noise of length 14 in 128 dimensions;
    with 512 rows, as in the paper, of 0.3 in 512 dimensions. With few people a cluster the centers
    say nothing, and what they add to accuracy is not knowledge (`benchmarks/methods.py`).

    Shared: the weight delta of the backbone (everything but the head) in clear, and the number of
    images; and at most `max_clusters` noised unit centers with their radius ρ.

    Args:
        epsilon: ε of one released center; > 0.
        delta: δ of one released center; in (0, 1).
        radius: ρ, angle of a cluster in radians; in (0, π/2).
        min_size: T, fewest class embeddings that may be averaged; ≥ 1.
        max_clusters: Q, most centers a client and round; ≥ 1.
        scale: s of the loss; > 0.
        margin: CosFace's m for the client's own classes; ≥ 0.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    radius: float = 1.3
    min_size: int = 4
    max_clusters: int = 2
    scale: float = 16.0
    margin: float = 0.35

    withheld: ClassVar[tuple[str, ...]] = (HEAD,)

    def __post_init__(self) -> None:
        _ = self.clustering  # refuses what DPLC refuses
        if self.scale <= 0 or self.margin < 0:
            raise ValueError(
                f"scale must be > 0 and margin ≥ 0, not {self.scale} and {self.margin}"
            )

    @property
    def clustering(self) -> DPLC:
        """The defense that releases the cluster centers."""
        return DPLC(
            epsilon=self.epsilon,
            delta=self.delta,
            radius=self.radius,
            min_size=self.min_size,
            max_clusters=self.max_clusters,
        )

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a split in which a client cannot fill a cluster, or shares people with others."""
        self.clustering.check(faces, split)
        require_one_client_each("PrivacyFace", split)

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with the consensus-aware loss."""
        settings = {
            "remote": len(split.clients) * self.max_clusters,
            "radius": self.radius,
            "scale": self.scale,
            "margin": self.margin,
        }
        return spec_with_head(spec, "consensus", settings)

    def sends(
        self, server: Mapping[str, Tensor], client: int, owned: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """The backbone, and the cluster centers of the others (rows of zeros are none)."""
        tensors = dict(server)
        if REMOTE in tensors:
            others = tensors[REMOTE].clone()
            others[client * self.max_clusters : (client + 1) * self.max_clusters] = 0
            tensors[REMOTE] = others
        return tensors

    def client(self, task: ClientTask) -> ClientReturn:
        """Train everything; share the backbone's delta and noised centers of the head's rows."""
        return self.clustering(train_locally)(task)

    def absorb(
        self, server: Mapping[str, Tensor], returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """The centers of this round, in `max_clusters` rows a client."""
        uploads = [next((s for s in r if isinstance(s, ClusterCenters)), None) for r in returns]
        width = next((s.centers.shape[1] for s in uploads if s is not None), None)
        if width is None:
            return {REMOTE: torch.zeros_like(server[REMOTE])} if REMOTE in server else {}
        remote = torch.zeros(len(returns), self.max_clusters, width)
        for client, centers in enumerate(uploads):
            if centers is not None:
                remote[client, : len(centers.centers)] = centers.centers
        return {REMOTE: remote.flatten(0, 1)}
