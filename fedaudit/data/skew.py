"""Heterogeneity of a split: how far clients differ in their people and in how photos look."""

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from statistics import mean

from torch import Tensor

from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split


def label_skew(faces: FaceSet, split: Split) -> float:
    """Mean total variation distance between the label distributions of two clients, in [0, 1].

    0 where all clients have the same people in equal parts, or of one client; 1 where no person
    is at two clients.
    """
    shares = []
    for photos in split.photos:
        counts = Counter(faces.people[i] for i in photos)
        shares.append({person: n / len(photos) for person, n in counts.items()})
    distances = [
        sum(abs(a.get(person, 0.0) - b.get(person, 0.0)) for person in a.keys() | b.keys()) / 2
        for a, b in combinations(shares, 2)
    ]
    return mean(distances) if distances else 0.0


def feature_skew(faces: FaceSet, split: Split, judge: Callable[[Tensor], Tensor]) -> float:
    """Share of a feature's variance within people that lies between clients (η²), in [0, 1].

    `judge` gives the feature of training photos, `[N, C, H, W]` → `[N]`. 0 where it does
    not vary within people, or each is at one client.
    """
    place = {i: client for client, photos in enumerate(split.photos) for i in photos}
    scores = judge(faces.images[list(place)]).double().tolist()
    score = dict(zip(place, scores, strict=True))
    whole: list[float] = []
    by_client: dict[int, list[float]] = {}
    for photos in split.train.values():
        middle = mean(score[i] for i in photos)
        for i in photos:
            whole.append((score[i] - middle) ** 2)
            by_client.setdefault(place[i], []).append(score[i] - middle)
    between = sum(len(part) * mean(part) ** 2 for part in by_client.values())
    return between / sum(whole) if sum(whole) > 0 else 0.0
