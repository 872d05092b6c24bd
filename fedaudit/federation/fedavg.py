"""FedAvg: clients train for several steps and share the change of the weights."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Each client trains locally for several steps; the server averages the weights.

    McMahan et al. (AISTATS 2017), algorithm 1. Shared: the weight delta, and the number of images.
    """
