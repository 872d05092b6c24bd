import sys
from dataclasses import replace
from pathlib import Path

from fedaudit.core.trial import Opinion, Trial
from fedaudit.reports.second_opinions import second_opinions
from fedaudit.reports.text import second_opinion
from fedaudit.reports.trials import Group

sys.path.insert(0, str(Path(__file__).parent))
from made_up import line


def judged(trials: list[Trial], hits: int) -> Group:
    """The trials with another judge, who re-identifies the first `hits` of them."""
    found = []
    for k, trial in enumerate(trials):
        other = Opinion(0.5, k < hits, 1)
        images = tuple(replace(image, others={"dlib": other}) for image in trial.images)
        found.append(replace(trial, images=images))
    return Group(tuple(found))


def test_the_second_judge_stands_beside_and_disagreement_is_counted() -> None:
    audit, prior = line(6, prior=None), line(0, prior=None)
    opinion = second_opinions(judged(audit, 3), judged(prior, 1))["dlib"]
    assert (opinion.reid.hits, opinion.reid.n) == (3, 8)
    assert opinion.prior is not None
    assert opinion.prior.hits == 1
    assert (opinion.disagreements, opinion.images) == (3, 8)
    words = "dlib: 3 of 8, of the prior-only control 1 of 8; disagrees on 3 of 8 images"
    assert second_opinion("dlib", opinion) == words
    clean = second_opinions(judged(audit, 3), judged(prior, 0))["dlib"]
    assert second_opinion("dlib", clean) == "dlib: 3 of 8; disagrees on 3 of 8 images"


def test_a_judge_without_a_threshold_has_no_say() -> None:
    group = judged(line(1, 3, prior=None), 1)
    silent = replace(group.trials[0].images[0], others={"dlib": Opinion(0.5, None, 1)})
    first = replace(group.trials[0], images=(silent,))
    assert second_opinions(Group((first, *group.trials[1:])), Group(())) == {}
