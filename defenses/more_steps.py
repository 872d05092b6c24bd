"""More local steps before anything is sent."""

from dataclasses import dataclass, replace

from fedaudit.core.observation import LocalTraining
from fedaudit.defenses.settings import pass_on, public_settings, require


@dataclass(frozen=True, kw_only=True)
class MoreSteps:
    """Let clients make at least `steps` local steps, and send what all of them changed.

    For methods that share a weight delta; one gradient (FedSGD) has one step, and is refused.
    Measured as a defense by Geiping et al. (NeurIPS 2020, arXiv 2003.14053, section 6) and Huang et
    al. (NeurIPS 2021, arXiv 2112.00059), recalled: what is sent is no longer a gradient at the
    weights that the server knows. The federation trains so, too: clients drift apart as steps grow
    (McMahan et al., AISTATS 2017). Attackers who know the settings replay the steps (Dimitrov et
    al., TMLR 2022, arXiv 2206.12395). Guarantee: none, it is a heuristic.

    Args:
        steps: Fewest local steps; ≥ 1. Where the study asks for more, nothing changes.
    """

    steps: int = 8

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be ≥ 1", self.steps)

    __call__ = pass_on  # the federation sets its training
    keeps_claims = True
    facts = public_settings("more_steps")

    def local(self, training: LocalTraining) -> LocalTraining:
        """The same local training with at least `steps` steps."""
        return replace(training, steps=max(training.steps, self.steps))
