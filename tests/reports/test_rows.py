import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.claims import Budget
from fedaudit.core.measures import Utility
from fedaudit.core.reconstruction import Adaptive
from fedaudit.reports.rows import contrasts, rows
from fedaudit.reports.verdicts import NOT_TESTED
from fedaudit.stats.intervals import clopper_pearson, holm, paired_p_value

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, SETTINGS, line, study, table, trial, trials

UTILITY = Utility(0.9, {"1e-2": 0.5}, 0.95, 900, 12, 30.0, 1000)


def test_one_row_for_each_line_in_the_studys_order() -> None:
    asked = study(defenses=("none", "dplc"), attacks=(IG, GAN), targets=2)
    made = [
        line(0, 2, attack=attack, defense=defense)
        for attack in (GAN, IG)
        for defense in ("dplc", "none")
    ]
    found = table(asked, *made)
    assert [(r.defense, r.attack) for r in found] == [
        ("none", IG),
        ("none", GAN),
        ("dplc", IG),
        ("dplc", GAN),
    ]
    assert table(asked) == ()
    assert [r.attack for r in table(asked, line(0, 2, attack=GAN))] == [GAN]


def test_rates_and_means() -> None:
    (row,) = table(study(), line(6))
    assert row.reid is not None
    assert (row.reid.hits, row.reid.n) == (6, 8)
    assert (row.reid.low, row.reid.high) == clopper_pearson(6, 8)
    assert (row.n_targets, row.n_people) == (8, 8)
    assert row.ssim is not None
    assert row.ssim.value == pytest.approx(0.535)
    assert row.prior_ssim is not None
    assert row.prior_ssim.value == pytest.approx(0.235)
    assert row.rank1 is not None
    assert row.rank1.hits == 6
    assert row.lpips is not None
    assert row.psnr is not None
    assert row.mse is not None
    assert (row.lpips.value, row.psnr.value, row.mse.value) == pytest.approx((0.5, 12.0, 0.05))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("estimated", "estimated", "no"), "estimated"),
        (("estimated", "no", "no"), "no"),
        (("estimated", "no"), "no"),
        (("no", "estimated"), "no"),
        (("known", "known"), "known"),
    ],
)
def test_what_an_attack_knew_on_most_targets(words: tuple[Adaptive, ...], expected: str) -> None:
    made = [replace(trial(t), adaptive=word) for t, word in enumerate(words)]
    (row,) = table(study(targets=len(words)), made)
    assert row.adaptive == expected


def test_the_prior_is_paired_by_target() -> None:
    """Other targets hit, in another order: the pairs decide, not the two rates."""
    ours = [trial(t, hits=(t < 6,)) for t in range(8)]
    theirs = [trial(t, hits=(t >= 6,), role="prior_only") for t in reversed(range(8))]
    (row,) = table(study(), ours, theirs)
    assert row.prior is not None
    assert row.prior.hits == 2
    assert row.excess is not None
    assert row.excess.value == pytest.approx((6 - 2) / 8)
    assert row.p_value == paired_p_value(
        [True] * 6 + [False] * 2, [False] * 6 + [True] * 2, range(8)
    )


def test_targets_without_a_control_are_left_out_of_the_pairs() -> None:
    ours = [trial(t, hits=(True,)) for t in range(8)]
    theirs = [trial(t, role="prior_only") for t in range(5)]
    (row,) = table(study(), ours, theirs)
    assert row.reid is not None
    assert row.excess is not None
    assert (row.reid.n, row.excess.n) == (8, 5)


def test_the_first_defenses_control_serves_all() -> None:
    asked = study(defenses=("none", "dplc"))
    found = table(asked, line(8), line(2, defense="dplc", prior=None))
    assert [r.excess.value for r in found if r.excess] == [1.0, 0.25]
    assert found[0].prior == found[1].prior


def test_without_a_control_there_is_no_excess() -> None:
    (row,) = table(study(), line(8, prior=None))
    assert (row.prior, row.excess, row.p_value, row.p_holm) == (None, None, None, None)
    assert row.verdict.kind == "INCONCLUSIVE"


def test_holm_over_all_rows_of_the_study() -> None:
    asked = study(defenses=("none", "dplc"), attacks=(IG, GAN), names=("fresh", "later"))
    found = table(
        asked,
        line(8),
        line(7, attack=GAN),
        line(5, defense="dplc", prior=None),
        line(6, scenario="later"),
        line(8, scenario="later", attack=GAN, prior=None),  # not tested against a prior
    )
    raw = [r.p_value for r in found]
    assert raw == [0.5**8, 0.5**7, 0.5**5, 0.5**6, None]
    assert [r.p_holm for r in found if r.p_value is not None] == holm(
        [p for p in raw if p is not None]
    )
    assert found[0].p_holm == 4 * 0.5**8
    assert found[4].p_holm is None


def test_the_worst_cell_is_where_the_face_is_closest() -> None:
    made = [trial(t, hits=(False, False), cosine=0.1 * t) for t in range(4)]
    best = replace(made[2].images[1], cosine=0.9)
    made[2] = replace(made[2], images=(made[2].images[0], best))
    (row,) = table(study(targets=4), made)
    assert (row.worst_cosine, row.worst_cell, row.worst_image) == (0.9, made[2].cell.key, 1)


def test_the_worst_of_negative_cosines() -> None:
    """Zero is a cosine, not an absent one."""
    made = [trial(t, cosine=c) for t, c in enumerate((-0.5, 0.0, -0.2))]
    (row,) = table(study(targets=3), made)
    assert (row.worst_cosine, row.worst_cell) == (0.0, made[1].cell.key)


def test_without_an_embedder_nothing_is_tested() -> None:
    made = [
        trial(t, hits=(None,), lpips=None, wrong=None, role=role)
        for t in range(8)
        for role in ("audit", "prior_only")
    ]
    (row,) = table(study(), made)
    assert row.verdict == NOT_TESTED
    absent = (row.reid, row.prior, row.excess, row.rank1, row.lpips, row.worst_cosine)
    assert absent == (None,) * 6
    assert (row.worst_cell, row.worst_image) == (None, None)
    assert row.ssim is not None
    assert row.ssim.value == pytest.approx(0.3)
    assert row.prior_ssim is not None


def test_batches_count_images_and_targets() -> None:
    made = [trial(t, hits=(True, False, False, False), batch_size=4) for t in range(3)]
    (row,) = table(study(targets=3, batch_size=4), made)
    assert row.reid is not None
    assert (row.reid.hits, row.reid.n, row.n_targets, row.n_people) == (3, 12, 3, 12)


def test_seconds_labels_budget_and_utility() -> None:
    budget = Budget(8.0, 1e-5, "one image", "Gaussian", "RDP")
    made = [
        trial(t, seconds=s, labels=share, budget=budget)
        for t, (s, share) in enumerate(((1.0, 1.0), (9.0, None), (2.0, 0.5)))
    ]
    given = {("fresh", "none"): UTILITY}
    (row,) = rows(study(targets=3), trials(made), given, SETTINGS)
    assert (row.seconds, row.labels) == (2.0, 0.75)
    assert (row.budget, row.utility) == (budget, UTILITY)
    assert row.adaptive == "known"


def test_severity_knows_who_only_watches() -> None:
    """6 of 10: the lower bound of 26 % is high, and one level up for a passive attacker."""
    grown = [table(study(threat_model=letter), line(6, 10))[0].verdict for letter in ("D", "G")]
    assert [v.kind for v in grown] == ["LEAK DEMONSTRATED"] * 2
    assert [v.severity for v in grown] == ["critical", "high"]


def test_the_later_attack_is_the_challenger() -> None:
    asked = study(attacks=(IG, GAN), defenses=("none", "dplc"))
    made = trials(
        line(2, ssim=lambda t: 0.3 + 0.01 * t),
        line(8, attack=GAN, ssim=lambda t: 0.4 + 0.01 * t, lpips=0.3, seconds=3.0),
        line(8, defense="dplc"),
    )
    found = {c.metric: c for c in contrasts(asked, made)}
    assert set(found) == {"ssim", "lpips", "reid"}
    for contrast in found.values():
        assert (contrast.first, contrast.second) == (GAN, IG)
        assert (contrast.scenario, contrast.defense) == ("fresh", "none")
        assert (contrast.seconds_first, contrast.seconds_second) == (3.0, 1.0)
    assert found["ssim"].difference.value == pytest.approx(0.1)
    assert found["lpips"].difference.value == pytest.approx(-0.2)
    assert found["reid"].difference.value == pytest.approx(0.75)
    assert (found["ssim"].higher_is_better, found["lpips"].higher_is_better) == (True, False)


def test_contrasts_need_both_attacks_and_the_metric() -> None:
    asked = study(attacks=(IG, GAN))
    assert contrasts(asked, trials(line(8))) == ()
    without = trials(line(2), line(8, attack=GAN, lpips=None))
    assert {c.metric for c in contrasts(asked, without)} == {"ssim", "reid"}
