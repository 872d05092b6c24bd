"""The test on identity for every line of a study, corrected for how many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from fedaudit.core.measures import IdentityTest, Rate
from fedaudit.core.scenario import Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import ImageScore, Lineup
from fedaudit.data.face_set import class_of
from fedaudit.reports.comparison import ADAPTED
from fedaudit.reports.looks import first_share, looked_at, test_at_look
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import outcomes
from fedaudit.stats.drawn_p_values import chunks_for
from fedaudit.stats.exchange import exchange_test
from fedaudit.stats.intervals import holm, paired_p_value, rate
from fedaudit.stats.randomization import Scores, rank_scores, within_strata_test
from fedaudit.stats.units import units

Line = tuple[str, str, str]
"""(scenario, defense, attack)"""
ALPHA = 0.05
"""Error level of what is called demonstrated, over the whole study."""
PRIMARY_SHARE = 0.8
"""Of the error level, what the primary row is tested at; the rest is everybody else's until it is
rejected, and all of it afterwards. `benchmarks/verdict_power.py` has what it costs."""

MARGIN = 10
"""How far below the error level the corrected p-value of a perfect row is, as far as draws go."""
RANK_SHARE = 0.8
"""Of the error level of the test over the control, what ranks have; matches have the rest. With
less, half of eight people are not shown (4 gains in 8: p = 0.038); 7 of 7 matches need 0.16."""


def group_test(group: Group, *, by_lot: bool, chunks: int = 1) -> IdentityTest | None:
    """The randomization test on what an attack rebuilt.

    None where nobody could be identified, or the run is older than the test: that is no evidence
    in either direction.

    Args:
        group: All trials of a line. Seeds, photos and updates of one person are one place.
        by_lot: Whether lots dealt people to clients, as in a simulation: everybody who trains
            could have stood anywhere. In a real run the people who were audited are exchanged
            among each other only, which supposes that nothing but the updates ties a face to its
            client.
        chunks: Of draws, at most.
    """
    lineups = _lineups(group)
    candidates = _candidates(lineups, by_lot=by_lot)
    rows: dict[str, list[Scores]] = {}
    for one in lineups:
        for person, row in zip(one.lineup.present, _scores(one.lineup, candidates), strict=True):
            rows.setdefault(person, []).append(row)
    if not rows:
        return None
    strata = []
    # People are one stratum. Lots dealt pictures that are no faces to places of their class.
    for kind in dict.fromkeys(map(class_of, rows)):
        mine = [person for person in rows if class_of(person) == kind]
        pool = [k for k, person in enumerate(candidates) if class_of(person) == kind]
        means = [np.mean(rows[person], axis=0)[pool] for person in mine]
        strata.append((means, [pool.index(candidates.index(person)) for person in mine]))
    updates = len({one.target for one in lineups})
    return within_strata_test(strata, updates=updates, chunks=chunks)


class _Known(NamedTuple):
    target: int
    seed: int
    lineup: Lineup
    behind: frozenset[str]


def _lineups(group: Group) -> list[_Known]:
    """Of all trials whose people are known; none where one of them has none, or another one."""
    entries = [trial for trial in group.trials if _are_known(trial.images)]
    people = [
        _Known(t.cell.target, t.cell.seed, t.lineup, _behind(t.lineup, t.images))
        for t in entries
        if t.lineup is not None
    ]
    alike = len({one.lineup.people for one in people}) == 1
    return people if alike and len(people) == len(entries) else []


def _behind(lineup: Lineup, images: Sequence[ImageScore]) -> frozenset[str]:
    """Everybody whose photos are behind an update, scored or not."""
    return frozenset((*lineup.present, *(person for image in images for person in image.beside)))


def _candidates(lineups: Sequence[_Known], *, by_lot: bool) -> list[str]:
    if by_lot and lineups:
        return list(lineups[0].lineup.people)
    return list(dict.fromkeys(person for one in lineups for person in one.lineup.present))


def _scores(lineup: Lineup, candidates: Sequence[str]) -> Scores:
    """`[K, P]`: how high each candidate stands in the place of each who was there.

    Among its own kind: all people, or of pictures that are no faces the images of one class.
    """
    columns = [lineup.people.index(person) for person in candidates]
    cosines, kinds = np.array(lineup.cosines)[:, columns], np.array([*map(class_of, candidates)])
    scores = np.empty_like(cosines)
    for kind in dict.fromkeys(kinds):
        scores[:, kinds == kind] = rank_scores(cosines[:, kinds == kind])
    return scores


def over_control(group: Group, prior: Group, *, by_lot: bool, chunks: int = 1) -> float | None:
    """p-value of "the update adds nothing to what its control says", by ranks and by matches.

    Both are tests of the same exchange of attack and control; the error level is split between
    them (Bonferroni, `RANK_SHARE`). Ranks among few people say little, and matches at a calibrated
    rate say much; among many people it is the other way round. None where there is no control, or
    nobody was identified.
    """
    by_ranks = over_control_by_ranks(group, prior, by_lot=by_lot, chunks=chunks)
    if by_ranks is None or not (group.tested() and prior.tested()):
        return by_ranks
    ours, theirs = outcomes(group.scores(), prior.scores())
    by_matches = paired_p_value(ours, theirs, range(len(ours)))
    return min(1.0, by_ranks / RANK_SHARE, by_matches / (1 - RANK_SHARE))


def over_control_by_ranks(
    group: Group, prior: Group, *, by_lot: bool, chunks: int = 1
) -> float | None:
    """The exchange test on the ranks of the right people, place by place.

    Attack and control of an update stand or fall together, and so do updates that share people.
    """
    known = _lineups(group)
    ours, theirs = (
        {(one.target, one.seed): one.lineup for one in of} for of in (known, _lineups(prior))
    )
    behind = {(one.target, one.seed): one.behind for one in known}
    common = sorted(ours.keys() & theirs.keys())
    candidates = _candidates(known, by_lot=by_lot)
    if not common or any(theirs[place].people != ours[place].people for place in common):
        return None
    of_unit = units([behind[place] for place in common])
    gains: dict[int, list[float]] = {}
    for unit, place in zip(of_unit, common, strict=True):
        who = [candidates.index(person) for person in ours[place].present]
        first, second = (_scores(side[place], candidates) for side in (ours, theirs))
        gains.setdefault(unit, []).extend((first - second)[range(len(who)), who].tolist())
    each = [float(np.mean(mine)) for mine in gains.values()]
    return exchange_test(each, 1 - len(candidates) ** -0.5, chunks=chunks)


def foreign(group: Group, threshold: float | None) -> Rate | None:
    """Rate of updates that show somebody who could have been behind them and was not.

    By a cosine above `threshold` that is higher than anybody's who was there; None where that is
    not known.
    """
    strangers = [_stranger(t.lineup, threshold) for t in group.trials if t.lineup and threshold]
    return rate(strangers, "updates") if strangers else None


def _stranger(lineup: Lineup, threshold: float | None) -> bool:
    closest = np.array(lineup.cosines).max(0)
    there = np.isin(lineup.people, lineup.present)
    return bool(closest[~there].max(initial=-1) > max(threshold or 1, closest[there].max()))


def identity_tests(
    study: Study, trials: Trials, source: SourceFacts = COMPLETE
) -> tuple[Mapping[Line, IdentityTest], Line | None]:
    """The tests of all lines with adjusted p-values, and the line that is tested first.

    Weighted Holm (Holm 1979): a leak anywhere in the study is demonstrated wrongly in at most 5 %
    of studies. The `primary` line has `PRIMARY_SHARE` of the weight. In a study that stops where it
    is decided, p-values are of complete looks, and allow for all of them.
    """
    trials = looked_at(study, trials)
    chunks = chunks_of(study)
    tests = {}
    for scenario in study.scenarios:
        for defense, attack in product(scenario.defenses, scenario.attacks):
            line = (scenario.name, defense.label, attack.label)
            if test := _line_test(trials, *line, source, chunks):
                at_look = study.sequential
                tests[line] = test_at_look(test, trials.group(*line), scenario) if at_look else test
    first = primary(study, trials, list(tests))
    rest = 1 if len(tests) < 2 else (1 - PRIMARY_SHARE) / (len(tests) - 1)
    weights = [PRIMARY_SHARE if line == first else rest for line in tests]
    of_update = [test.of_update for test in tests.values()]
    p_values = holm(of_update, weights)
    adjusted = {}
    for k, (line, test) in enumerate(tests.items()):
        least = holm([*of_update[:k], test.smallest, *of_update[k + 1 :]], weights)[k]
        adjusted[line] = replace(test, adjusted=p_values[k], smallest=least)
    return adjusted, first


def chunks_of(study: Study) -> int:
    """Chunks of draws that let a row alone demonstrate a leak, whatever the other rows say.

    The smallest p-value of a row that is not the primary one has to stay well below `ALPHA` when
    it is corrected for all rows, and for all looks of a study that stops where it is decided. Only
    what was asked decides it, not what came of it.
    """
    lines = sum(len(scenario.defenses) * len(scenario.attacks) for scenario in study.scenarios)
    share = (1 - PRIMARY_SHARE) / max(1, lines - 1)
    if study.sequential:
        share *= min(first_share(scenario.targets) for scenario in study.scenarios)
    return chunks_for(ALPHA * share / MARGIN)


def _line_test(
    trials: Trials, scenario: str, defense: str, attack: str, source: SourceFacts, chunks: int
) -> IdentityTest | None:
    """The test of a line, guarded by its control where something else may say who it was."""
    group = trials.group(scenario, defense, attack)
    by_lot = source.truth == "complete"
    test = group_test(group, by_lot=by_lot, chunks=chunks)
    if test is None:
        return None
    prior = trials.group(scenario, defense, attack, "prior_only")
    control, beside = group_test(prior, by_lot=by_lot), _beside(group, source)
    return replace(
        test,
        beside=beside,
        over_control=over_control(group, prior, by_lot=by_lot, chunks=chunks),
        guarded=bool(beside) or (control is not None and control.p_value <= ALPHA),
    )


def _beside(group: Group, source: SourceFacts) -> str:
    """What beside the updates could have told an attack who stands at which place.

    Of a fresh round of a simulation nothing can, to attacks that know neither the deal nor a table
    of labels and people: the model has seen nobody, and lots dealt the places.
    """
    if source.truth == "brought":
        return "no lots dealt these people to their clients"
    if group.cell.round > 1:
        return "the audited model was trained on these people"
    if group.cell.attack in source.strangers:
        return f"{group.cell.attack} is of another package, and may know whose labels these are"
    return ""


def primary(study: Study, trials: Trials, lines: Sequence[Line]) -> Line | None:
    """The line that is tested first, chosen before any result is looked at.

    In the first scenario that has it, the deployed defense (the first that is not `none` where the
    study states none) under its strongest attack: of those that took the defense into account, the
    last that the study lists. What an attack took into account it says itself, without the truth,
    so that choosing by it leaves the test exact.
    """
    for scenario in study.scenarios:
        labels = [d.label for d in scenario.defenses]
        defenses = [d.label for d in scenario.defenses if d.name != "none"]
        for defense in study.audited or defenses or labels:
            mine = [line for line in lines if line[:2] == (scenario.name, defense)]
            adaptive = [line for line in mine if trials.group(*line).adaptive in ADAPTED]
            if mine:
                return (adaptive or mine)[-1]
    return None


def _are_known(images: Sequence[ImageScore]) -> bool:
    """Whether it is known whom they show; a search of the gallery does not tell."""
    return any(image.cosine is not None and not image.nearest for image in images)
