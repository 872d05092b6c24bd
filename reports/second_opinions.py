"""What the judges of identity beside the first say of a row; it decides nothing."""

from collections.abc import Callable, Iterable

from fedaudit.core.trial import ImageScore
from fedaudit.reports.measurement import SecondOpinion
from fedaudit.reports.trials import Group
from fedaudit.reports.unit_scores import rate_of


def second_opinions(group: Group, prior: Group) -> dict[str, SecondOpinion]:
    """By label, of the judges that have an opinion of every image of the group.

    Args:
        group: What one attack rebuilt under one defense.
        prior: Of its control; may be empty.
    """
    scores = list(group.scores().values())
    return {
        label: SecondOpinion(
            reid=rate_of(group, _matched_by(label)),
            prior=rate_of(prior, _matched_by(label))
            if prior and _decides(prior.scores().values(), label)
            else None,
            disagreements=sum(s.others[label].reidentified != s.reidentified for s in scores),
            images=len(scores),
        )
        for label in scores[0].others
        if _decides(scores, label)
    }


def _matched_by(label: str) -> Callable[[ImageScore], bool]:
    return lambda score: bool(score.others[label].reidentified)


def _decides(scores: Iterable[ImageScore], label: str) -> bool:
    opinions = [score.others.get(label) for score in scores]
    return all(opinion and opinion.reidentified is not None for opinion in opinions)
