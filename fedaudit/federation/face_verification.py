"""Face verification on held-out people: same person or not, at thresholds that others set."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedaudit.stats.intervals import auc

FARS = {"1e-2": 1e-2, "1e-3": 1e-3}
FOLDS = 10
"""Groups of people; each pair of groups is judged at the threshold that all others set."""
LEAST_PEOPLE = 4
"""Two are judged by the threshold of two others."""
LEAST_FALSE_ACCEPTS = 3
"""Expected false accepts below which no threshold at a false accept rate is set."""


@dataclass(frozen=True)
class Verification:
    """Verification over all pairs of photos of held-out people.

    Attributes:
        accuracies: By person, in the order of their names: the mean of the share of pairs of their
            own photos that are accepted and the share of pairs with another's that are refused;
            0.5 is chance.
        tar_at_far: True accept rate at the false accept rate named in the key; without those that
            too few pairs can set a threshold for.
        auc: Area under the ROC curve of all pairs, in [0, 1].
        pairs: Number of all pairs.
    """

    accuracies: tuple[float, ...]
    tar_at_far: dict[str, float]
    auc: float
    pairs: int


def verify_pairs(embeddings: Tensor, people: tuple[str, ...]) -> Verification:
    """Judge every pair of `embeddings [N, D]` (unit rows), each at other people's threshold.

    A threshold that is chosen on the pairs that it then judges flatters: people are put into at
    most ten groups, and pairs between two groups are judged at the threshold that maximizes the
    balanced accuracy of all pairs without anybody of either.

    Args:
        embeddings: Of photos of at least four people, two photos of each.
        people: Who is on each photo.
    """
    names = sorted(set(people))
    codes = np.array([names.index(p) for p in people])
    rows, columns = (x.numpy() for x in torch.triu_indices(len(people), len(people), 1))
    scores = (embeddings @ embeddings.T).double().numpy()[rows, columns]
    first, second = codes[rows], codes[columns]
    genuine = first == second
    groups = min(FOLDS, len(names))
    right = np.zeros(len(scores), dtype=bool)
    accepts: dict[str, list[np.ndarray]] = {name: [] for name in FARS}
    for a in range(groups):
        apart = (first % groups != a) & (second % groups != a)
        own = genuine & (first % groups == a)
        for name, far in FARS.items():
            threshold = _threshold_at(scores[apart & ~genuine], far)
            if threshold is not None:
                accepts[name].append(scores[own] > threshold)
        for b in range(a, groups):
            others = apart & (first % groups != b) & (second % groups != b)
            between = _between(first % groups, second % groups, a, b)
            threshold = _best_threshold(scores[others & genuine], scores[others & ~genuine])
            right[between] = (scores[between] >= threshold) == genuine[between]
    return Verification(
        accuracies=tuple(
            float(
                right[genuine & (first == k)].mean()
                + right[~genuine & _of(first, second, k)].mean()
            )
            / 2
            for k in range(len(names))
        ),
        tar_at_far={
            name: float(np.concatenate(parts).mean())
            for name, parts in accepts.items()
            if len(parts) == groups
        },
        auc=auc(torch.from_numpy(scores[genuine]), torch.from_numpy(scores[~genuine])),
        pairs=len(scores),
    )


def _of(first: np.ndarray, second: np.ndarray, person: int) -> np.ndarray:
    mine: np.ndarray = (first == person) | (second == person)
    return mine


def _between(first: np.ndarray, second: np.ndarray, a: int, b: int) -> np.ndarray:
    either: np.ndarray = ((first == a) & (second == b)) | ((first == b) & (second == a))
    return either


def _best_threshold(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Halfway between the genuine score of the best balanced accuracy and the next one below."""
    true, false = np.sort(genuine), np.sort(impostor)
    accept = np.arange(len(true), 0, -1) / len(true)
    refuse = np.searchsorted(false, true) / len(false)
    best = float(true[int((accept + refuse).argmax())])
    both = np.concatenate([true, false])
    lower = both[both < best]
    return best if not len(lower) else (best + float(lower.max())) / 2


def _threshold_at(impostor: np.ndarray, far: float) -> float | None:
    if len(impostor) * far < LEAST_FALSE_ACCEPTS:
        return None
    return float(np.sort(impostor)[len(impostor) - 1 - int(far * len(impostor))])
