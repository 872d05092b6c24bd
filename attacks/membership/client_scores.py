"""Scores of membership at each client, from measurements over rounds: FedMIA and baselines."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedaudit.attacks.membership.round_measurements import Measurements
from fedaudit.core.errors import AttackError

FEWEST = 3
"""Clients of which FedMIA needs: the others' spread takes two."""


def fedmia(measured: Tensor) -> Tensor:
    """How unlike the other clients' updates a client's are toward a photo, over all rounds.

    FedMIA (Zhu et al., CVPR 2025, "all for one"): a photo is at most at one client, so what the
    *other* clients' updates say of it is what non-members' say, and no shadow model is needed. In
    each round a Gaussian is fitted to the others, and the rounds' one-sided likelihoods are
    multiplied.

    Args:
        measured: `[rounds, clients, photos]`, higher speaks for membership.

    Returns:
        `[clients, photos]`: Σ over rounds of log Φ((m − mean of the others) / their deviation).

    Raises:
        AttackError: Fewer than three clients.
    """
    values = measured.double()
    clients = values.shape[1]
    if clients < FEWEST:
        raise AttackError(
            f"FedMIA compares a client with the others, of which it takes two; here are {clients} "
            "clients. Use the averages over rounds instead."
        )
    scores = []
    for client in range(clients):
        others = values[:, [k for k in range(clients) if k != client]]
        spread = others.std(1).clamp_min(torch.finfo(torch.float64).tiny)
        z = (values[:, client] - others.mean(1)) / spread
        scores.append(torch.special.log_ndtr(z).sum(0))
    return torch.stack(scores)


def average(measured: Tensor) -> Tensor:
    """`[clients, photos]`: mean over rounds, the baseline of Li et al. (2022) and Zari et al."""
    return measured.double().mean(0)


ATTACKS: Mapping[str, Callable[[Measurements], Tensor]] = {
    "FedMIA": lambda m: fedmia(m.loss) + fedmia(m.alignment),
    "FedMIA, loss": lambda m: fedmia(m.loss),
    "FedMIA, alignment": lambda m: fedmia(m.alignment),
    "loss": lambda m: average(m.loss),
    "gradient alignment": lambda m: average(m.alignment),
}
"""Attacks by name; each takes measurements to `[clients, photos]`."""


def score(measured: Measurements) -> dict[str, Tensor]:
    """Scores `[clients, photos]` of every attack that so many clients allow."""
    enough = measured.loss.shape[1] >= FEWEST
    return {
        name: attack(measured)
        for name, attack in ATTACKS.items()
        if enough or not name.startswith("FedMIA")
    }
