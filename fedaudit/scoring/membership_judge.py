"""Judge scores of membership by the truth: who is in which client's data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.inference import Level, MembershipScore, Recall
from fedaudit.core.measures import Rate
from fedaudit.stats.clustered_rates import rate_by_person
from fedaudit.stats.intervals import auc, rate
from fedaudit.stats.roc import roc, shuffled_auc, threshold_at

RATES = (0.001, 0.01)
"""False-positive rates at which members are counted, beside the smallest that there can be."""


@dataclass(frozen=True)
class Candidate:
    """A candidate photo, whose person is in a client's data or in nobody's.

    Attributes:
        person: Whom it shows.
        client: At whom the person trains; None of an outsider, who is in nobody's data.
        trained: Whether it is one of the photos that train; of an outsider, whether it lies where
            they do in the set, so that like is compared with like.
    """

    person: str
    client: int | None
    trained: bool


@dataclass(frozen=True)
class _Group:
    """Candidates that are all members, or all outsiders.

    Attributes:
        columns: Their places among all candidates.
        people: Of each.
    """

    columns: tuple[int, ...]
    people: tuple[str, ...]

    def by_person(self, scores: Tensor) -> Tensor:
        """`[clients, people]`: mean over each person's photos."""
        return torch.stack(
            [
                scores[:, [k for k, p in zip(self.columns, self.people, strict=True) if p == name]]
                .double()
                .mean(1)
                for name in dict.fromkeys(self.people)
            ],
            1,
        )


def judge_membership(
    attacks: Mapping[str, Tensor], candidates: Sequence[Candidate], generator: torch.Generator
) -> tuple[MembershipScore, ...]:
    """How well each attack tells members, as images and as people.

    Args:
        attacks: By name, scores `[clients, candidates]`; higher speaks for membership.
        candidates: What the truth is.
        generator: Of the shuffled memberships.
    """
    levels: list[tuple[Level, bool]] = [("image", True), ("person", False)]
    return tuple(
        _judge(name, scores, candidates, level, in_training, generator)
        for name, scores in attacks.items()
        for level, in_training in levels
        if any(one.trained is in_training and one.client is not None for one in candidates)
    )


def outsiders_apart(
    scores: Tensor, candidates: Sequence[Candidate], generator: torch.Generator
) -> float | None:
    """p-value of half of the outsiders, called members, against the other half; None below four.

    They are in nobody's data, so that a small one says that the pipeline tells apart what is alike.
    """
    group = _group(candidates, member=False, in_training=True)
    people = group.by_person(scores)
    half = people.shape[1] // 2
    if half < 2:
        return None
    homes = torch.arange(half) % scores.shape[0]
    return shuffled_auc(people, homes, generator)[1]


def _judge(
    name: str,
    scores: Tensor,
    candidates: Sequence[Candidate],
    level: Level,
    in_training: bool,
    generator: torch.Generator,
) -> MembershipScore:
    inside = _group(candidates, member=True, in_training=in_training)
    outside = _group(candidates, member=False, in_training=in_training)
    home = {one.person: one.client for one in candidates if one.client is not None}
    homes = torch.tensor([home[p] for p in dict.fromkeys(inside.people)])
    people, others = inside.by_person(scores), outside.by_person(scores)
    area, p_value, chance = shuffled_auc(torch.cat([people, others], 1), homes, generator)
    if level == "person":
        true, of = people[homes, torch.arange(len(homes))], None
        false = others.flatten()
    else:
        at = torch.tensor([candidates[k].client for k in inside.columns])
        true, of = scores[at, torch.tensor(inside.columns)].double(), inside.people
        false = scores[:, list(outside.columns)].double().flatten()
        area = auc(true, false)
    rates = dict.fromkeys((*RATES, 1 / len(false)))
    return MembershipScore(
        attack=name,
        level=level,
        auc=area,
        shuffled=chance,
        p_value=p_value,
        recalls=tuple(Recall(fpr, _recall(true, false, fpr, of)) for fpr in sorted(rates)),
        roc=roc(true, false),
    )


def _recall(true: Tensor, false: Tensor, fpr: float, people: Sequence[str] | None) -> Rate | None:
    threshold = threshold_at(false, fpr)
    if threshold is None:
        return None
    hits = (true > threshold).tolist()
    return rate(hits) if people is None else rate_by_person(hits, people)


def _group(candidates: Sequence[Candidate], *, member: bool, in_training: bool) -> _Group:
    members = [
        (k, one.person)
        for k, one in enumerate(candidates)
        if (one.client is not None) is member and one.trained is in_training
    ]
    return _Group(tuple(k for k, _ in members), tuple(person for _, person in members))
