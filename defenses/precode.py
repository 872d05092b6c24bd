"""PRECODE: a random bottleneck in the network, in front of the head."""

from dataclasses import dataclass

from fedaudit.core.observation import ModelSpec
from fedaudit.data.splits import Split
from fedaudit.defenses.settings import pass_on, public_settings, require
from fedaudit.models.variational_bottleneck import spec_with_bottleneck


@dataclass(frozen=True, kw_only=True)
class Precode:
    """Train a network that draws its embedding from a distribution which it computes.

    PRECODE (Scheliga et al., WACV 2022, arXiv 2108.04725): a variational bottleneck between the
    features and the classification layer. A linear encoder gives mean and spread of `size`
    numbers, a linear decoder makes an embedding of a draw of them; the loss adds β times the KL
    divergence from a standard normal distribution. Here it takes the embedding layer's place.
    Defaults are the paper's, as recalled. The client draws in each step, from its own randomness;
    people are verified by the mean. Attacker and server have the network, but not the draw.

    Guarantee: none, it is a heuristic. The noise enters behind the features: what an encoder's
    gradient and the layers before it give away does not depend on it. Balunović et al. (ICLR 2022,
    arXiv 2111.04706) break it by leaving the bottleneck's gradient out or by searching for the
    noise with the photos, recalled.

    Args:
        size: k, numbers that are drawn; ≥ 1.
        beta: β, weight of the divergence in the loss; ≥ 0.
    """

    size: int = 256
    beta: float = 1e-3

    def __post_init__(self) -> None:
        require(self.size >= 1, "size must be ≥ 1", self.size)
        require(self.beta >= 0, "beta must be ≥ 0", self.beta)

    __call__ = pass_on  # the bottleneck is in the network
    keeps_claims = True
    facts = public_settings("precode")

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with the bottleneck, which client, server and attacker build."""
        return spec_with_bottleneck(spec, self.size, self.beta)
