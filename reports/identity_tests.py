"""The test on identity for every line of a study, corrected for how many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from fedaudit.core.measures import IdentityTest, Rate
from fedaudit.core.scenario import Study
from fedaudit.core.trial import ImageScore, Lineup
from fedaudit.reports.comparison import ADAPTED
from fedaudit.reports.trials import Group, Trials
from fedaudit.stats.intervals import holm, rate
from fedaudit.stats.randomization import identity_test, rank_scores

Line = tuple[str, str, str]
"""(scenario, defense, attack)"""
PRIMARY_SHARE = 0.8
"""Of the error level, what the primary row is tested at; the rest is everybody else's until it is
rejected, and all of it afterwards. `benchmarks/verdict_power.py` has what it costs."""


def group_test(group: Group, *, by_lot: bool) -> IdentityTest | None:
    """The randomization test on what an attack rebuilt.

    None where nobody could be identified, or the run is older than the test: that is no evidence
    in either direction.

    Args:
        group: All trials of a line. Seeds, photos and updates of one person are one place.
        by_lot: Whether lots dealt people to clients, as in a simulation: everybody who trains
            could have stood anywhere. In a real run the people who were audited are exchanged
            among each other only, which supposes that nothing but the updates ties a face to its
            client.
    """
    lineups = [(t.cell.target, t.lineup) for t in group.trials if _identified(t.images)]
    known = [(target, one) for target, one in lineups if one is not None]
    if not known or len(known) < len(lineups) or len({one.people for _, one in known}) > 1:
        return None
    everybody = known[0][1].people
    present = list(dict.fromkeys(person for _, one in known for person in one.present))
    candidates = list(everybody) if by_lot else present
    columns = [everybody.index(person) for person in candidates]
    rows: dict[str, list[np.ndarray]] = {person: [] for person in present}
    for _, one in known:
        ranks = rank_scores(np.array(one.cosines)[:, columns])
        for person, row in zip(one.present, ranks, strict=True):
            rows[person].append(row)
    return identity_test(
        [np.mean(rows[person], axis=0) for person in present],
        [candidates.index(person) for person in present],
        updates=len({target for target, _ in known}),
    )


def foreign(group: Group, threshold: float | None) -> Rate | None:
    """Of how many updates somebody comes out who could have been in it, and was not.

    By a cosine above `threshold` that is higher than anybody's who was there; None where that is
    not known.
    """
    found = [_stranger(t.lineup, threshold) for t in group.trials if t.lineup and threshold]
    return rate(found, "updates") if found else None


def _stranger(shown: Lineup, threshold: float | None) -> bool:
    closest = np.array(shown.cosines).max(0)
    there = np.isin(shown.people, shown.present)
    return bool(closest[~there].max(initial=-1) > max(threshold or 1, closest[there].max()))


def identity_tests(
    study: Study, trials: Trials, *, by_lot: bool
) -> tuple[Mapping[Line, IdentityTest], Line | None]:
    """The tests of all lines with adjusted p-values, and the line that is tested first.

    Weighted Holm (Holm 1979): a leak anywhere in the study is demonstrated wrongly in at most 5 %
    of studies. The `primary` line has `PRIMARY_SHARE` of the weight.
    """
    tests = {
        (scenario.name, defense.label, attack.label): test
        for scenario in study.scenarios
        for defense, attack in product(scenario.defenses, scenario.attacks)
        if (group := trials.group(scenario.name, defense.label, attack.label))
        and (test := group_test(group, by_lot=by_lot))
    }
    first = primary(study, trials, list(tests))
    rest = 1 if len(tests) < 2 else (1 - PRIMARY_SHARE) / (len(tests) - 1)
    weights = [PRIMARY_SHARE if line == first else rest for line in tests]
    adjusted = holm([test.p_value for test in tests.values()], weights)
    return {
        line: replace(test, adjusted=p)
        for (line, test), p in zip(tests.items(), adjusted, strict=True)
    }, first


def primary(study: Study, trials: Trials, lines: Sequence[Line]) -> Line | None:
    """The line that matters most, known before anybody looks at who was found.

    In the first scenario that has it, the deployed defense (the first that is not `none` where the
    study states none) under its strongest attack: of those that took the defense into account, the
    last that the study lists. What an attack took into account it says itself, without the truth,
    so that choosing by it leaves the test exact.
    """
    for scenario in study.scenarios:
        labels = [d.label for d in scenario.defenses]
        protected = [d.label for d in scenario.defenses if d.name != "none"]
        for defense in study.audited or protected or labels:
            mine = [line for line in lines if line[:2] == (scenario.name, defense)]
            adapted = [line for line in mine if trials.group(*line).adaptive in ADAPTED]
            if mine:
                return (adapted or mine)[-1]
    return None


def _identified(images: Sequence[ImageScore]) -> bool:
    """Whether it is known whom they show; a search of the gallery does not tell."""
    return any(image.cosine is not None and not image.nearest for image in images)
