"""Linkage of templates: rates with intervals, and unlinkability as in ISO/IEC 24745.

ISO/IEC 24745 wants templates of one person in two places not to be recognizable as such;
ISO/IEC 30136 wants that shown by the scores of mated pairs (one person) against those of non-mated
pairs (two people).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedaudit.core.errors import DataError
from fedaudit.core.measures import Rate
from fedaudit.scoring.identity import PAIRS_PER_FALSE_MATCH
from fedaudit.stats.intervals import auc, rate

FPR = 0.01
Drift = Literal["none", "center", "rotate"]


@dataclass(frozen=True)
class Links:
    """Similarities and one-to-one assignment of two sets of templates.

    Attributes:
        scores: `[a, b]` how alike each two are, cosine in [-1, 1].
        partner: `[a]` the second set's template that each of the first is held to be of the same
            person as, one to one; -1 where the second set is too small for everybody.
        drift: How the two were made comparable.
        clarity: By how many standard deviations of all scores the chosen pairs stand out; what
            `drift` was chosen by.
    """

    scores: Tensor
    partner: Tensor
    drift: Drift
    clarity: float


@dataclass(frozen=True)
class Linkage:
    """Measures of how well two sets of templates were linked.

    Attributes:
        linked: Templates whose partner in the one-to-one assignment is their own person's, of
            those who have one there. The interval takes them as independent, which an assignment
            is not quite.
        rank1: Templates whose own person's template scores highest of all in the other set.
        chance: What guessing gives for either: the mean of 1 over the other set's size.
        auc: Area under the verification curve of all pairs, in [0, 1]; 0.5 is chance.
        eer: Error rate at the threshold where both kinds of error are as frequent; 0.5 is chance.
        tpr: Mated pairs above the threshold that 1 % of non-mated pairs exceed; None where there
            are too few of these (300) to set it.
        d_sys: Global linkability in [0, 1] (`linkability`); 0 is fully unlinkable, 1 fully
            linkable. Few mated pairs make it too high: compare it with that of the noise control.
        mated, non_mated: Numbers of pairs.
    """

    linked: Rate
    rank1: Rate
    chance: float
    auc: float
    eer: float
    tpr: Rate | None
    d_sys: float
    mated: int
    non_mated: int


def judge(links: Sequence[Links], mates: Sequence[Tensor]) -> Linkage:
    """Score one or more linkings, whose pairs are pooled.

    Args:
        links: What the attack returned.
        mates: For each of them `[a]`, the template of the second set that is of the same person as
            each of the first; -1 where the person is not there.

    Raises:
        DataError: Nobody is in both sets, or there is no pair of two people.
    """
    hits: list[bool] = []
    rank1: list[bool] = []
    chances, genuine, others = [], [], []
    for link, mate in zip(links, mates, strict=True):
        rows = (mate >= 0).nonzero().flatten()
        own = torch.zeros_like(link.scores, dtype=torch.bool)
        own[rows, mate[rows]] = True
        hits += (link.partner[rows] == mate[rows]).tolist()
        rank1 += (link.scores[rows].argmax(1) == mate[rows]).tolist()
        chances += [1 / link.scores.shape[1]] * len(rows)
        genuine.append(link.scores[own])
        others.append(link.scores[~own])
    true, false = torch.cat(genuine), torch.cat(others)
    if not len(true) or not len(false):
        raise DataError(
            f"linkage needs pairs of one person and of two: there are {len(true)} and {len(false)}."
            " Choose people who are at two places, and others."
        )
    return Linkage(
        linked=rate(hits),
        rank1=rate(rank1),
        chance=sum(chances) / len(chances),
        auc=auc(true, false),
        eer=_eer(true, false),
        tpr=_tpr(true, false),
        d_sys=linkability(true, false),
        mated=len(true),
        non_mated=len(false),
    )


def linkability(mated: Tensor, non_mated: Tensor, *, bins: int = 0) -> float:
    """D_sys, global linkability, in [0, 1].

    Gomez-Barrero et al. (IEEE TIFS 2018), with both hypotheses equally likely: at a score s with
    likelihood ratio LR(s) = p(s | mated) / p(s | non-mated) above 1 the local measure is
    D(s) = 2·LR / (1 + LR) − 1, else 0, and D_sys = ∫ p(s | mated) D(s) ds. Formula and the rule for
    the number of bins are as recalled in the literature. Densities are histograms of common bins
    from the least to the greatest score; 0 `bins` are a tenth of the mated pairs, from 2 to 100.
    """
    count = bins or max(2, min(100, len(mated) // 10))
    both = torch.cat([mated, non_mated]).double().numpy()
    edges = np.linspace(both.min(), both.max(), count + 1)
    edges[-1] = np.nextafter(edges[-1], np.inf)
    p, q = (
        np.histogram(scores.double().numpy(), edges)[0] / len(scores)
        for scores in (mated, non_mated)
    )
    return local_linkability(p, q)


def local_linkability(p: np.ndarray, q: np.ndarray) -> float:
    """Σ p·D over bins with the probabilities `p` of mated and `q` of non-mated pairs.

    >>> local_linkability(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    # 2·LR / (1 + LR) − 1 = (p − q) / (p + q), which holds for q = 0 as well.
    total = np.where(p + q > 0, p + q, 1.0)
    return float((p * np.clip((p - q) / total, 0, None)).sum())


def _eer(true: Tensor, false: Tensor) -> float:
    """Where the curves of both errors meet; the mean of the two at the nearest threshold."""
    thresholds = torch.cat([true, false]).sort().values
    thresholds = torch.cat([thresholds, thresholds[-1:] + 1])
    misses = torch.searchsorted(true.sort().values, thresholds) / len(true)
    passes = 1 - torch.searchsorted(false.sort().values, thresholds) / len(false)
    nearest = (misses - passes).abs().argmin()
    return float((misses[nearest] + passes[nearest]) / 2)


def _tpr(true: Tensor, false: Tensor) -> Rate | None:
    if len(false) * FPR < PAIRS_PER_FALSE_MATCH:
        return None
    threshold = false.sort(descending=True).values[int(FPR * len(false))]
    return rate((true > threshold).tolist())
