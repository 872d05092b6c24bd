"""DPLC, PrivacyFace's sharing (Meng et al. 2022, arXiv 2201.12467)."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from fedaudit.core.claims import Claim, Gap, Spending
from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import DataError
from fedaudit.core.observation import DefenseFacts
from fedaudit.core.shared import ClusterCenters
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.defenses.composition import releasing, with_claim
from fedaudit.defenses.settings import require, settings_of

HEAD = "head."
MEMBERSHIP = Gap(
    "cluster membership",
    "which class embeddings form a cluster, and whether one is large enough, is decided without "
    "noise",
)


@dataclass(frozen=True, kw_only=True)
class DPLC:
    """Share the backbone without the head, and noised centers of clusters of class embeddings.

    Meng et al. (ICLR 2022, arXiv 2201.12467), differentially private local clustering; details are
    recalled and derived from the paper's abstract, not taken from its code. Class
    embeddings are normalized; the largest group within an angle ρ of one of them is averaged,
    noised and released, its members are removed, at most Q times, and never a group of fewer than
    T. Guarantee: (ε, δ) a released center, for replacing one class embedding *with the group's
    membership held fixed*. The choice of groups depends on the data and carries no noise. The
    backbone's update travels in clear and is covered by no guarantee.

    Args:
        epsilon: ε of one released center; > 0.
        delta: δ of one released center; in (0, 1).
        radius: ρ, angle of a cluster in radians; in (0, π/2).
        min_size: T, fewest class embeddings that may be averaged; ≥ 1.
        max_clusters: Q; ≥ 1.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    radius: float = 1.3
    min_size: int = 4
    max_clusters: int = 2

    def __post_init__(self) -> None:
        require(self.epsilon > 0, "epsilon must be > 0", self.epsilon)
        require(0 < self.delta < 1, "delta must lie in (0, 1)", self.delta)
        require(0 < self.radius < math.pi / 2, "radius must lie in (0, π/2)", self.radius)
        if self.min_size < 1 or self.max_clusters < 1:
            raise ValueError("min_size and max_clusters must be at least 1")

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a split in which a client has too few people to fill a cluster."""
        for client, people in enumerate(split.clients):
            if len(people) < self.min_size:
                raise DataError(
                    f"client {client} has {len(people)} people, hence {len(people)} class centers, "
                    f"and DPLC releases no cluster of fewer than min_size = {self.min_size}. Lower "
                    "min_size or [federation] clients, or add people."
                )

    def __call__(self, step: ClientStep) -> ClientStep:
        """Keep the head on the device, release noised centers of its rows."""

        def private_step(task: ClientTask) -> ClientReturn:
            reply = step(replace(task, withheld=(*task.withheld, HEAD)))
            rows = reply.kept.get("head.weight")
            if rows is None:
                return reply
            centers = self.release(rows, task.generator)
            if not len(centers):
                return reply
            return with_claim(
                releasing(reply, ClusterCenters(centers, self.radius)), self.claim(len(centers))
            )

        return private_step

    keeps_claims = True

    def facts(self) -> DefenseFacts:
        """Settings are public; the head is not."""
        return DefenseFacts("dplc", settings_of(self), (HEAD,))

    def release(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Noised unit centers `[q, D]`, q ≤ Q, of the class embeddings `rows [K, D]`."""
        centers = []
        for members in self.clusters(rows):
            sigma = gaussian_sigma(self.sensitivity(len(members)), self.epsilon, self.delta)
            mean = F.normalize(rows[members], dim=1).mean(0)
            noise = torch.randn(mean.shape, generator=generator) * sigma
            centers.append(F.normalize(mean + noise, dim=0))
        return torch.stack(centers) if centers else rows.new_zeros(0, rows.shape[1])

    def claim(self, centers: int) -> Claim:
        """The guarantee of so many released centers."""
        return Claim(
            epsilon=self.epsilon * centers,
            delta=self.delta * centers,
            unit="class embedding",
            neighbors="replace one",
            covers=("cluster_centers",),
            gaps=(MEMBERSHIP,),
            mechanism="DPLC",
            settings={
                "centers": str(centers),
                "ρ": self.radius,
                "T": float(self.min_size),
                "ε of one center": self.epsilon,
            },
            accountant="basic composition of the analytic Gaussian mechanism",
            sampling="every class embedding takes part in every round",
            spendings=(Spending("stated", centers, epsilon=self.epsilon, delta=self.delta),),
        )

    def clusters(self, rows: Tensor) -> list[Tensor]:
        """Indices of the members of each cluster, largest first; at most Q, none below T."""
        unit = F.normalize(rows, dim=1)
        near = (unit @ unit.T).clamp(-1, 1).acos() <= self.radius
        near.fill_diagonal_(True)  # acos of a rounded cosine may miss a row's own neighborhood
        left = torch.ones(len(rows), dtype=torch.bool)
        clusters: list[Tensor] = []
        while len(clusters) < self.max_clusters:
            sizes = (near & left).sum(1) * left
            best = int(sizes.argmax()) if len(rows) else 0
            if not len(rows) or sizes[best] < self.min_size:
                break
            members = (near[best] & left).nonzero().flatten()
            clusters.append(members)
            left[members] = False
        return clusters

    def sensitivity(self, size: int) -> float:
        """L2 distance that one replaced member can move the mean of `size` unit rows.

        The old row lies within ρ of the row around which the cluster was found, and the new one
        within ρ of the row around which it is found again. These may be two, at most ρ apart: the
        replaced row turns by up to 3ρ. Of a cluster of two they are one and the same, and the row
        turns by up to 2ρ; alone in its cluster, it may become any other.
        """
        turns = {1: math.inf, 2: 2 * self.radius}.get(size, 3 * self.radius)
        return 2 * math.sin(min(turns, math.pi) / 2) / size


def gaussian_sigma(sensitivity: float, epsilon: float, delta: float) -> float:
    """Least σ of Gaussian noise that is (ε, δ)-DP at an L2 sensitivity.

    The analytic Gaussian mechanism (Balle & Wang, ICML 2018, theorem 8): the least σ with
    Φ(Δ/2σ − εσ/Δ) − e^ε Φ(−Δ/2σ − εσ/Δ) ≤ δ, found by bisection.
    """

    def spent(sigma: float) -> float:
        a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
        # The logarithm first: e^ε alone overflows at ε > 709.
        return float(ndtr(a - b)) - math.exp(epsilon + float(log_ndtr(-a - b)))

    low, high = 1e-6 * sensitivity, sensitivity
    while spent(high) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high
