"""What Gaussian noise on a clipped update gives, as a claim of each neighbor relation."""

import math
from collections.abc import Mapping

from fedaudit.core.claims import Claim, Neighbors, Spending
from fedaudit.stats.gaussian_dp import epsilon_of_mu

EXACT = "Gaussian DP, exact"
CLOSE = 1.001
"""Ratio up to which two ε count as the same: configurations are rounded."""
INFLUENCE: dict[Neighbors, int] = {"add or remove one": 1, "replace one": 2}
"""Clipping norms by which an update changes: to nothing, and to another one."""


def client_noise(
    *,
    mechanism: str,
    noise: float,
    delta: float,
    rounds: int,
    settings: Mapping[str, float | str],
    covers: tuple[str, ...] = ("update",),
    sampling: str = "every client in every round",
) -> tuple[Claim, ...]:
    """Claims for one client whose clipped update gets noise in each of its rounds.

    Rounds of a client that takes part in each of them compose exactly: μ grows with their root
    (Dong, Roth & Su 2022, corollary 3.3).

    Args:
        mechanism: What gives it.
        noise: Standard deviation over the clipping norm.
        delta: At which ε is stated.
        rounds: In which the client takes part.
        settings: For the small print.
        covers: Kinds of things that are sent and noised.
        sampling: What ε assumes of who takes part.
    """
    return tuple(
        Claim(
            epsilon=gaussian_epsilon(noise / norms, rounds, delta),
            delta=delta,
            unit="client",
            neighbors=neighbors,
            covers=covers,
            rounds=rounds,
            mechanism=mechanism,
            settings=settings,
            accountant=EXACT,
            sampling=sampling,
            spendings=(Spending("gaussian", rounds, noise / norms),),
        )
        for neighbors, norms in INFLUENCE.items()
    )


def gaussian_epsilon(noise: float, runs: int, delta: float) -> float:
    """ε of `runs` releases of Gaussian noise; `noise` is its deviation over the sensitivity."""
    return math.inf if noise == 0 else epsilon_of_mu(math.sqrt(runs) / noise, delta)
