"""The matching engine on an observation, and gradients as one vector."""

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.matching import Matching
from fedaudit.core.observation import Observation


def engine(seen: Observation, *, use_first_fc: bool = True) -> Matching:
    generator = torch.Generator().manual_seed(0)
    return Matching(gather(seen), use_first_fc=use_first_fc, generator=generator)


def flat(gradients: Gradients) -> Tensor:
    return torch.cat([g.detach().flatten() for g in gradients])
