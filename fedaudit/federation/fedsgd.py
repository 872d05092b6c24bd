"""FedSGD: clients share gradients, the server takes the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Update
from fedaudit.federation.aggregation import mean_update


@dataclass(frozen=True, kw_only=True)
class FedSGD:
    """Each client shares the gradient of one batch; the server steps along the mean.

    McMahan et al. (AISTATS 2017), section 2. Shared: the gradient, and the number of images.
    """

    share: ClassVar[Literal["gradient", "delta"]] = "gradient"

    def local(self, training: LocalTraining) -> LocalTraining:
        """One plain step, whatever the federation's settings say; the server applies it."""
        return replace(
            training, steps=1, momentum=0.0, optimizer="sgd", weight_decay=0.0, proximal=0.0
        )

    def combine(
        self, before: Mapping[str, Tensor], updates: Sequence[Update], training: LocalTraining
    ) -> dict[str, Tensor]:
        """Global parameters of the next round: before − lr · mean gradient."""
        mean = mean_update(updates)
        return {k: v - training.lr * mean[k] if k in mean else v for k, v in before.items()}
