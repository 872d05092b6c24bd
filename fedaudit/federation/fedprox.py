"""FedProx: FedAvg whose clients are held near the global model."""

from dataclasses import dataclass, replace

from fedaudit.core.observation import LocalTraining
from fedaudit.defenses.settings import require


@dataclass(frozen=True, kw_only=True)
class FedProx:
    """Each client minimizes its loss + μ/2·‖w − w_global‖²; the server averages the weights.

    Li et al. (MLSys 2020), algorithm 2. Shared: the weight delta, and the number of images. The
    term is zero in the first of a client's local steps: with one step this is FedAvg.

    Args:
        mu: μ, where the study sets no `proximal` of its own; ≥ 0.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        require(self.mu >= 0, "mu must be ≥ 0", self.mu)

    def local(self, training: LocalTraining) -> LocalTraining:
        """The federation's local training with the proximal term."""
        return replace(training, proximal=training.proximal or self.mu)
