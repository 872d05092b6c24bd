"""Scores of membership at each client, over rounds: FedMIA, LiRA, RMIA and baselines."""

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
    """Mean of the measurements over rounds, `[clients, photos]` (Li et al. 2022; Zari et al.)."""
    return measured.double().mean(0)


def lira(loss: Tensor, shadows: Tensor) -> Tensor:
    """How unlike the shadow clients' models a client's is toward a photo, over all rounds.

    LiRA, offline (Carlini et al., IEEE S&P 2022): a Gaussian is fitted to the logits that models
    give which did not train on the photo, and the client's is held against it.

    Args:
        loss: `[rounds, clients, photos]`, log-probabilities by the clients' local models.
        shadows: `[rounds, shadows, photos]`, NaN of models that trained on the photo's person.

    Returns:
        `[clients, photos]`: Σ over rounds of log Φ((logit − mean of the shadows) / deviation).
    """
    out, own = _logit(shadows), _logit(loss)
    count = (~out.isnan()).sum(1, keepdim=True)
    mean = out.nanmean(1, keepdim=True)
    variance = (out - mean).square().nansum(1, keepdim=True) / (count - 1).clamp_min(1)
    z = (own - mean) / variance.sqrt().clamp_min(1e-6)
    scores: Tensor = torch.special.log_ndtr(z).sum(0)
    return scores


def rmia(loss: Tensor, shadows: Tensor, strangers: Tensor) -> Tensor:
    """Share of strangers whose photos gain less by a client's training than this photo does.

    RMIA, offline (Zarifzadeh, Liu & Shokri, ICML 2024, arXiv 2312.03262), with γ = 1: a photo's
    gain is its probability by the client's model over the mean one by shadow clients' models.

    Args:
        loss: `[rounds, clients, photos]`, log-probabilities by the clients' local models.
        shadows: `[rounds, shadows, photos]`, NaN of models that trained on the photo's person.
        strangers: `[photos, photos]`, with whom each row is compared.

    Returns:
        `[clients, photos]` in [0, 1], the mean over rounds.
    """
    mean = shadows.double().exp().nanmean(1, keepdim=True).clamp_min(1e-300).log()
    gain = loss.double() - mean
    more = (gain[..., :, None] >= gain[..., None, :]).double()
    return ((more * strangers).sum(-1) / strangers.sum(-1).clamp_min(1)).mean(0)


def _logit(loss: Tensor) -> Tensor:
    """Of log-probabilities, kept finite."""
    values = loss.double().clamp(max=-1e-12)
    logit: Tensor = values - torch.log(-torch.expm1(values))
    return logit


ATTACKS: Mapping[str, Callable[[Measurements], Tensor]] = {
    "FedMIA": lambda m: fedmia(m.loss) + fedmia(m.alignment),
    "FedMIA, loss": lambda m: fedmia(m.loss),
    "FedMIA, alignment": lambda m: fedmia(m.alignment),
    "loss": lambda m: average(m.loss),
    "gradient alignment": lambda m: average(m.alignment),
}
"""Attacks by name; each takes measurements to `[clients, photos]`."""
SHADOWED = ("LiRA, shadow clients", "RMIA, shadow clients")
"""Attacks that take shadow clients."""


def score(measured: Measurements) -> dict[str, Tensor]:
    """Scores `[clients, photos]` of every attack that so many clients allow.

    LiRA and RMIA are among them where there are shadow clients.
    """
    enough = measured.loss.shape[1] >= FEWEST
    scores = {
        name: attack(measured)
        for name, attack in ATTACKS.items()
        if enough or not name.startswith("FedMIA")
    }
    if measured.shadows is not None and measured.strangers is not None:
        by_lira = lira(measured.loss, measured.shadows)
        by_rmia = rmia(measured.loss, measured.shadows, measured.strangers)
        scores |= dict(zip(SHADOWED, (by_lira, by_rmia), strict=True))
    return scores
