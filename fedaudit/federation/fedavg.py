"""FedAvg: clients train for several steps and share the change of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Update
from fedaudit.federation.aggregation import mean_update


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Each client trains locally for several steps; the server averages the weights.

    McMahan et al. (AISTATS 2017), algorithm 1. Shared: the weight delta, and the number of images.
    """

    share: ClassVar[Literal["gradient", "delta"]] = "delta"

    def local(self, training: LocalTraining) -> LocalTraining:
        """As the federation's settings say."""
        return training

    def combine(
        self, before: Mapping[str, Tensor], updates: Sequence[Update], training: LocalTraining
    ) -> dict[str, Tensor]:
        """Global parameters of the next round: before + mean delta, weighted by images."""
        del training
        mean = mean_update(updates)
        return {k: v + mean[k] if k in mean else v for k, v in before.items()}
