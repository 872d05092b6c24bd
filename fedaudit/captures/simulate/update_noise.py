"""Noise in place of an update: what an attack returns where nothing was shared at all."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.templates.read_templates import rows_of_sum
from fedaudit.core.observation import Observation
from fedaudit.core.shared import (
    Aggregate,
    Buffers,
    ClassEmbeddings,
    ClusterCenters,
    Shared,
    SummedRows,
    with_tensors,
)


def without_update(seen: Observation, generator: torch.Generator) -> Observation:
    """The observation with every shared tensor replaced by noise of the same norm.

    Running statistics of batch norm, which noise would make no statistics, are replaced by what
    the server had sent, and facts about the client's batch are taken away.
    What the attack returns on this it owes to its prior and its optimizer, not to the client.
    """

    def drawn(value: Tensor) -> Tensor:
        if value.dtype == torch.int32:  # of the ring modulo 2³² (`MaskedVectors`)
            return torch.randint(-(2**31), 2**31, value.shape, generator=generator).to(value)
        if not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=generator)
        return noise.mul(value.norm() / noise.norm().clamp_min(1e-12))

    def unmoved(tensors: Mapping[str, Tensor], times: float = 1.0) -> dict[str, Tensor]:
        before = seen.before
        return {n: before[n] * times if n in before else value for n, value in tensors.items()}

    def noise(shared: Shared) -> Shared:
        if isinstance(shared, Buffers):
            return replace(shared, tensors=unmoved(shared.tensors))
        if isinstance(shared, Aggregate) and shared.kind == "buffers":
            return replace(shared, tensors=unmoved(shared.tensors, sum(shared.weights)))
        if isinstance(shared, ClusterCenters):
            return replace(shared, centers=F.normalize(drawn(shared.centers), dim=1))
        if isinstance(shared, ClassEmbeddings):
            return replace(shared, rows=torch.stack([drawn(row) for row in shared.rows]))
        if isinstance(shared, SummedRows):
            # Noise in what each owner put in: what others did is what the server had sent.
            rows = rows_of_sum(shared, seen.before)
            own = rows.new_tensor([shared.weights[owner] for owner in shared.owners])[:, None]
            new = torch.stack([drawn(row) for row in rows])
            return replace(shared, total=shared.total + own * (new - rows))
        noisy: Shared = with_tensors(shared, drawn)  # of any kind, ours or a package's
        return noisy

    return replace(
        seen,
        shared=tuple(noise(s) for s in seen.shared),
        statistics=None,
        earlier=tuple(without_update(one, generator) for one in seen.earlier),
    )
