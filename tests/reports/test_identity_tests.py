import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from fedaudit.core.measures import IdentityTest
from fedaudit.core.scenario import Choice
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import Lineup, Trial
from fedaudit.reports.identity_tests import (
    ALPHA,
    PRIMARY_SHARE,
    RANK_SHARE,
    foreign,
    group_test,
    identity_tests,
    over_control,
    over_control_by_ranks,
)
from fedaudit.reports.trials import Group, Trials
from fedaudit.stats.intervals import clopper_pearson, holm

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, line, lineup, measured, study, table, trial, trials


def _group(*made: Trial) -> Group:
    return Group(made)


def test_the_rows_have_the_test_and_the_controls_of_it() -> None:
    """Four of four people is enough; none of eight, or nothing but the prior, is not."""
    asked = study(defenses=("none", "dplc"))
    found, lost = map(measured, table(asked, line(4, 4), line(0, 8, defense="dplc", prior=None)))
    assert found.identity
    assert found.prior_identity
    assert lost.identity
    assert found.identity.people == found.identity.updates == 4
    assert found.identity.candidates == 40
    assert found.identity.p_value < 1e-4
    assert found.p_holm is not None
    assert found.p_holm < 0.01
    assert min(found.prior_identity.p_value, lost.identity.p_value) > 0.05
    assert found.prior_identity.adjusted is None


def test_a_person_counts_once() -> None:
    """Seeds of a target and two updates of one person are no further evidence."""
    once = group_test(_group(trial(0, hits=(True,)), trial(1, hits=(True,))), by_lot=True)
    people = ("p0-0",)
    again = [replace(trial(0, hits=(True,)), cell=replace(trial(0).cell, seed=k)) for k in range(9)]
    twice = [trial(1, hits=(True,)), trial(2, hits=(True,), people=("p1-0",))]
    more = group_test(_group(*again, *twice), by_lot=True)
    assert once
    assert more
    assert (more.people, more.updates) == (2, 3)
    assert more.p_value == once.p_value
    assert group_test(_group(trial(0, hits=(True,), people=people)), by_lot=True)


def test_photos_of_one_update_have_places_of_their_own() -> None:
    test = group_test(
        _group(trial(0, hits=(True, True)), trial(1, hits=(True, False))), by_lot=True
    )
    assert test
    assert (test.people, test.updates) == (4, 2)


def test_in_a_real_run_only_audited_people_change_places() -> None:
    made = _group(*(trial(k, hits=(True,)) for k in range(4)))
    test = group_test(made, by_lot=False)
    assert test
    assert (test.candidates, test.exact) == (4, True)
    assert test.p_value == test.smallest == pytest.approx(1 / 24)


def test_a_run_older_than_the_test_has_none() -> None:
    old = [replace(t, lineup=None) for t in line(8)]
    (row,) = table(study(), old)
    assert measured(row).identity is None
    assert measured(row).p_holm is None
    half = _group(trial(0, hits=(True,)), replace(trial(1, hits=(True,)), lineup=None))
    assert group_test(half, by_lot=True) is None
    changed = replace(trial(1), lineup=Lineup(("p1-0", "x"), ("p1-0",), ((0.1, 0.2),)))
    assert group_test(_group(trial(0), changed), by_lot=True) is None


def test_who_has_no_gallery_photos_is_left_out() -> None:
    unknown = replace(trial(1, hits=(None,)), lineup=None)
    test = group_test(_group(trial(0, hits=(True,)), unknown), by_lot=True)
    assert test
    assert test.people == 1
    assert group_test(_group(unknown), by_lot=True) is None


def test_the_primary_row_is_chosen_without_the_outcome() -> None:
    """The first defense that is not none, under the last attack that took it into account."""
    asked = study(defenses=("none", "dplc", "soteria"), attacks=(GAN, IG, "dlg"))
    asked = replace(asked, scenarios=(*asked.scenarios, replace(asked.scenarios[0], name="later")))
    for hits in (0, 8):
        made = [
            line(hits if attack == GAN else 4, defense=defense, attack=attack, scenario=scenario)
            for scenario in ("fresh", "later")
            for defense in ("none", "dplc", "soteria")
            for attack in (GAN, IG, "dlg")
        ]
        made[5] = [replace(t, adaptive="no") for t in made[5]]  # dlg on dplc
        found = table(asked, *made)
        (first,) = [row for row in found if row.primary]
        assert (first.scenario, first.defense, first.attack) == ("fresh", "dplc", IG)


def test_the_primary_row_bears_most_of_the_error_level() -> None:
    asked = study(defenses=("none", "dplc"), attacks=(IG,))
    made = trials(line(2, 3, prior=None), line(1, 3, defense="dplc", prior=None))
    tests, first = identity_tests(asked, made)
    assert first == ("fresh", "dplc", IG)
    other = ("fresh", "none", IG)
    p, q = tests[first].p_value, tests[other].p_value
    assert q / 0.2 < p / 0.8, "made so that the other row comes first"
    assert tests[other].adjusted == pytest.approx(q / 0.2)
    assert tests[first].adjusted == pytest.approx(max(p, q / 0.2))


def test_a_leak_in_one_of_hundreds_of_rows_is_demonstrated() -> None:
    """With 20,000 draws for every row, a perfect one of 250 had an adjusted p of 0.06."""
    labels = tuple(f"d{k}" for k in range(250))
    asked = study(defenses=labels, attacks=(IG,), deployed=("d1",))
    made = trials(*(line(8 * (d == "d7"), defense=d, prior=None) for d in ("d1", "d7")))
    of_two, _ = identity_tests(asked, made)
    rest = [IdentityTest(0.6, 1.0, 8, 8, 40, 1e-5, exact=False)] * 248
    p_values = [of_two["fresh", "d1", IG].of_update, *(one.of_update for one in rest)]
    leak = of_two["fresh", "d7", IG].p_value
    weights = [PRIMARY_SHARE] + [(1 - PRIMARY_SHARE) / 249] * 249
    assert holm([*p_values, leak], weights)[-1] <= ALPHA / 5
    assert holm([*p_values, 1 / 20_000], weights)[-1] > ALPHA


def test_a_row_that_no_outcome_could_show_says_so_by_its_corrected_p_value() -> None:
    """The right one of 40 is 1 of 40, and too much for a row that shares a fifth of 5 %."""
    asked = study(defenses=("none", "d1"), attacks=(IG,), deployed=("d1",), targets=1)
    deployed, control = (
        measured(row)
        for row in sorted(
            table(asked, line(1, 1), line(0, 1, defense="d1")), key=lambda row: row.undefended
        )
    )
    assert deployed.identity
    assert control.identity
    assert deployed.identity.smallest == pytest.approx(1 / 40 / PRIMARY_SHARE)
    assert control.identity.p_value == pytest.approx(1 / 40)
    assert control.identity.smallest == pytest.approx(1 / 40 / (1 - PRIMARY_SHARE))
    assert deployed.identity.smallest <= ALPHA < control.identity.smallest


def test_without_a_defense_the_control_is_the_primary_row() -> None:
    asked = study()
    asked = replace(
        asked, scenarios=(replace(asked.scenarios[0], defenses=(Choice("none", label="bare"),)),)
    )
    (row,) = table(asked, line(4, defense="bare"))
    assert row.primary
    test = measured(row).identity
    assert test
    assert test.adjusted == test.p_value


def test_lineups_are_of_everybody() -> None:
    shown = lineup({"p0-0": True})
    assert max(zip(shown.cosines[0], shown.people, strict=True)) == (0.8, "p0-0")


def test_a_prior_that_knows_the_audited_people_rebuilds_others() -> None:
    """Of five updates, in three somebody comes out who was not there; who was, does not count."""
    there = [trial(k, hits=(True,), role="prior_only") for k in range(2)]
    elsewhere = [
        replace(t, lineup=replace(shown, present=("p9-0",)))
        for t in (trial(k, hits=(True,), role="prior_only") for k in range(2, 5))
        if (shown := t.lineup)
    ]
    rate = foreign(_group(*there, *elsewhere), 0.4)
    assert rate
    assert (rate.hits, rate.n, rate.unit) == (3, 5, "updates")
    assert foreign(_group(*elsewhere), 0.9) == replace(
        rate, hits=0, n=3, value=0, low=0, high=clopper_pearson(0, 3)[1]
    )
    assert foreign(_group(*elsewhere), None) is None


def test_who_was_there_may_be_found_beside_a_likeness() -> None:
    """Somebody else above the threshold is no stranger rebuilt where the right one is closer."""
    made = trial(0, hits=(True,), role="prior_only")
    assert made.lineup
    (row,) = made.lineup.cosines
    alike = replace(made.lineup, cosines=((*row[:-1], 0.6),))
    rate = foreign(_group(replace(made, lineup=alike)), 0.4)
    assert rate
    assert rate.hits == 0


def test_a_search_of_the_gallery_does_not_say_who_was_there() -> None:
    """Its cosines are of the nearest, and take nothing from the updates whose people are known."""
    (image,) = trial(1).images
    searched = replace(trial(1), images=(replace(image, nearest="p3-0"),), lineup=None)
    test = group_test(_group(trial(0, hits=(True,)), searched), by_lot=True)
    assert test
    assert test.people == 1


def test_updates_of_one_person_are_averaged() -> None:
    """Many updates of somebody who is not found do not outweigh one of somebody who is."""
    found = trial(0, hits=(True,))
    lost = [trial(k, people=("p9-0",)) for k in range(1, 7)]
    test = group_test(_group(found, *lost), by_lot=True)
    assert test
    assert 1 < test.statistic < 2


def _with_control(hits: int, prior: int, n: int = 8, **more: Any) -> IdentityTest:
    tests, _ = identity_tests(study(targets=n), trials(line(hits, n, prior=prior)), **more)
    return tests["fresh", "none", IG]


def test_of_a_fresh_round_the_test_alone_decides() -> None:
    found = _with_control(4, 0)
    assert (found.beside, found.guarded) == ("", False)
    assert found.of_update == found.p_value == found.adjusted


def test_what_a_prior_knows_is_no_leak_however_little_it_knows() -> None:
    """The control finds two of eight: it need not find as many to say who stands where."""
    found = _with_control(4, 2)
    assert found.p_value < 1e-3
    assert found.guarded
    assert found.over_control == pytest.approx(binom.sf(9, 16, 0.5) / RANK_SHARE)
    assert found.of_update == found.over_control
    assert found.of_update > 0.05


def test_a_leak_beyond_what_a_prior_knows_is_one() -> None:
    """Both are as sure as a test can be of who it was, and the update still says more."""
    found = _with_control(19, 6, n=20)
    assert found.guarded
    assert found.of_update < 0.01


def test_what_may_say_who_it_was_beside_the_update() -> None:
    """A trained model, an attack from elsewhere, and people whom no lots dealt."""
    asked, made = study(), trials(line(3))
    trained = Trials(tuple(replace(t, cell=replace(t.cell, round=2)) for t in made.all))
    strange = SourceFacts(strangers=(IG,))
    real = SourceFacts(truth="brought")
    for shown, source, word in (
        (trained, COMPLETE, "trained on these people"),
        (made, strange, f"{IG} is of another package"),
        (made, real, "no lots"),
    ):
        test = identity_tests(asked, shown, source)[0]["fresh", "none", IG]
        assert word in test.beside
        assert test.guarded
        assert test.of_update > 0.05


def test_matches_say_what_ranks_among_few_people_cannot() -> None:
    """Seven of seven clients of a real run, among themselves, and none on invented people."""
    found = _group(*(trial(k, hits=(True,)) for k in range(7)))
    control = _group(*(trial(k, hits=(False,), role="prior_only") for k in range(7)))
    both = over_control(found, control, by_lot=False)
    assert both is not None
    assert both <= 2**-7 / (1 - RANK_SHARE) < 0.05
    half = _group(*(trial(k, hits=(k < 3,)) for k in range(7)))
    few = over_control(half, control, by_lot=False)
    assert few is not None
    assert few > 0.05


def test_without_a_control_a_guarded_row_shows_nothing() -> None:
    strange = SourceFacts(strangers=(IG,))
    made = trials(line(8, prior=None))
    test = identity_tests(study(), made, strange)[0]["fresh", "none", IG]
    assert (test.over_control, test.of_update) == (None, 1.0)


def test_photos_of_one_update_change_sides_together() -> None:
    """Two updates of two people are two units; seeds of an update are one."""
    pairs = _group(*(trial(k, hits=(True, True)) for k in range(2)))
    control = _group(*(trial(k, hits=(False, False), role="prior_only") for k in range(2)))
    assert over_control_by_ranks(pairs, control, by_lot=True) == pytest.approx(1 / 16)
    seeds = [
        replace(t, cell=replace(t.cell, seed=seed))
        for seed in range(3)
        for t in (*pairs.trials, *control.trials)
    ]
    again = (Group(tuple(t for t in seeds if t.cell.role == r)) for r in ("audit", "prior_only"))
    assert over_control_by_ranks(*again, by_lot=True) == pytest.approx(1 / 16)
    assert over_control_by_ranks(pairs, Group(()), by_lot=True) is None


@pytest.mark.parametrize(("rank", "p_value"), [(2, 1.0), (3, binom.sf(15, 16, 0.5))])
def test_a_gain_counts_from_half_of_what_can_be_gained(rank: int, p_value: float) -> None:
    """Eight people come first with their update, and second or third of 40 without it."""

    def without(made: Trial) -> Trial:
        known = made.lineup
        assert known
        nearer = iter(range(rank - 1))
        cosines = [
            0.5 if person in known.present else 0.9 if next(nearer, None) is not None else 0.0
            for person in known.people
        ]
        return replace(made, lineup=replace(known, cosines=(tuple(cosines),)))

    found = _group(*(trial(k, hits=(True,)) for k in range(8)))
    control = _group(*(without(trial(k, role="prior_only")) for k in range(8)))
    assert over_control_by_ranks(found, control, by_lot=True) == pytest.approx(p_value)
