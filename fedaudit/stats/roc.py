"""How well scores tell members from others: recall at small false-positive rates, and chance."""

import torch
from torch import Tensor

SHUFFLES = 1999
"""Of a randomization test: its smallest p-value is 1 in one more."""


def threshold_at(false: Tensor, fpr: float) -> float | None:
    """The score above which at most a share `fpr` of `false [m]` lies; None for m < 1 / fpr.

    >>> threshold_at(torch.arange(100.0), 0.01)
    98.0
    """
    budget = int(fpr * len(false) + 1e-9)
    return float(false.sort(descending=True).values[budget]) if budget else None


def roc(true: Tensor, false: Tensor, points: int = 100) -> tuple[tuple[float, float], ...]:
    """(FPR, TPR), one a false-positive rate, in order; about `points` of them, the first all kept.

    >>> roc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]))
    ((0.0, 0.5), (0.5, 1.0), (1.0, 1.0))
    """
    best: dict[float, float] = {}
    for cut in sorted(set(torch.cat([true, false]).tolist())):  # from the loosest
        best.setdefault(float((false > cut).double().mean()), float((true > cut).double().mean()))
    rates = [(x, y) for x, y in {1.0: 1.0, **best}.items()][::-1]
    half = points // 2
    corners = [*rates[:half], *rates[half :: -(-len(rates) // half)], (1.0, 1.0)]
    return tuple(dict.fromkeys((round(x, 6), round(y, 6)) for x, y in corners))


def shuffled_auc(
    scores: Tensor, homes: Tensor, generator: torch.Generator, shuffles: int = SHUFFLES
) -> tuple[float, float, float]:
    """Randomization test of "the scores say nothing of who is a member".

    Members were drawn at random, so that any other people are as likely to have their places. The
    people are exchanged, not their photos, nor pairs of a person and a client.

    Args:
        scores: `[clients, people]`, members first.
        homes: `[members]` the client of each.
        generator: Of the shuffles.
        shuffles: How many.

    Returns:
        AUC of members at their clients against the others at every client, the p-value, and the AUC
        that 97.5 % of shuffles stay below.
    """
    members, people = len(homes), scores.shape[1]

    def statistic(orders: Tensor) -> Tensor:
        inside = scores[homes, orders[:, :members]]
        others = scores[:, orders[:, members:]].movedim(0, 1).flatten(1).sort(1).values
        below, upto = (torch.searchsorted(others, inside, right=right) for right in (False, True))
        return (below + upto).double().mean(1) / (2 * others.shape[1])

    own = float(statistic(torch.arange(people)[None])[0])
    orders = torch.stack([torch.randperm(people, generator=generator) for _ in range(shuffles)])
    others = torch.cat([statistic(some) for some in torch.split(orders, 200)])
    p = (1 + int((others >= own - 1e-9).sum())) / (1 + shuffles)
    return own, p, float(others.quantile(0.975))
