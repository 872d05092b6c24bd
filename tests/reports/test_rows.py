import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.reconstruction import Adaptive
from fedaudit.core.trial import Trial
from fedaudit.reports.contrasts import contrasts
from fedaudit.reports.headline import headline
from fedaudit.reports.measurement import Worst
from fedaudit.reports.recorded import findings_of
from fedaudit.reports.rows import rows
from fedaudit.reports.verdicts import NOT_TESTED
from fedaudit.scoring.copies import calibrate_copies
from fedaudit.stats.intervals import clopper_pearson

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, SETTINGS, claim, gallery, line, measured, study, table, trial, trials
from sample_rows import worth

UTILITY = worth(0.9)


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
    m = measured(row)
    assert m.reid is not None
    assert (m.reid.hits, m.reid.n) == (6, 8)
    assert (m.reid.low, m.reid.high) == clopper_pearson(6, 8)
    assert (m.n_targets, m.n_people) == (8, 8)
    assert m.ssim is not None
    assert m.ssim.value == pytest.approx(0.535)
    assert m.prior_ssim is not None
    assert m.prior_ssim.value == pytest.approx(0.235)
    assert m.rank1 is not None
    assert m.rank1.hits == 6
    values = [m.metrics[name].value for name in ("lpips", "psnr", "mse")]
    assert values == pytest.approx([0.5, 12.0, 0.05])


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
    m = measured(row)
    assert m.prior is not None
    assert m.prior.hits == 2
    assert m.excess is not None
    assert m.excess.value == pytest.approx((6 - 2) / 8)


def test_targets_without_a_control_are_left_out_of_the_pairs() -> None:
    ours = [trial(t, hits=(True,)) for t in range(8)]
    theirs = [trial(t, role="prior_only") for t in range(5)]
    (row,) = table(study(), ours, theirs)
    m = measured(row)
    assert m.reid is not None
    assert m.excess is not None
    assert (m.reid.n, m.excess.n) == (8, 5)


def test_no_defense_is_compared_with_the_control_of_another() -> None:
    asked = study(defenses=("none", "dplc"))
    found = table(asked, line(8), line(2, defense="dplc", prior=1))
    first, second = map(measured, found)
    assert [m.excess.value for m in (first, second) if m.excess] == [1.0, 0.125]
    (_, alone) = table(asked, line(8), line(2, defense="dplc", prior=None))
    assert measured(alone).excess is None


def test_without_a_control_there_is_no_excess() -> None:
    (row,) = table(study(), line(8, prior=None))
    m = measured(row)
    assert (m.prior, m.excess, m.prior_identity) == (None, None, None)
    assert row.verdict.kind == "INCONCLUSIVE"


@pytest.mark.parametrize("calibrated", [40, 10, 0])
def test_a_copy_is_proof_on_enough_people(calibrated: int) -> None:
    """One of two photos comes back as itself."""
    known = calibrate_copies({f"p{k}": 20.0 + k % 8 for k in range(calibrated)})
    assert known.psnr == (28.0 if calibrated else 30.0)

    def of(psnr: float, made: Trial) -> Trial:
        (image,) = made.images
        return replace(made, images=(replace(image, metrics={**image.metrics, "psnr": psnr}),))

    made = [of(12 + 20 * t, trial(t)) for t in range(2)]
    control = [of(20, trial(t, role="prior_only")) for t in range(2)]
    judge = replace(gallery(), copies=known)
    (row,) = rows(study(targets=2), trials(made, control), {}, SETTINGS, judge)
    m = measured(row)
    assert m.copies
    assert m.prior_copies
    assert (m.copies.hits, m.copies.n, m.prior_copies.hits) == (1, 2, 0)
    assert m.copied == (calibrated == 40)
    # The sentence on top tells what anybody sees on the page, and why it is no proof.
    top = headline((row,), SETTINGS, ("none",))[0]
    told = "photos come back as what passes for copies, of 1 of 2 people" in top.sentence
    assert told == (calibrated != 40)
    if calibrated != 40:
        (found,) = (f for f in findings_of(study(targets=2), (), (row,)) if "copies" in f.title)
        assert "come back as what passes for copies" in found.title
        assert "come back as what passes for copies, of 1 of 2 people" in found.claim
        doubt = "other photos of 1 of 10 people reach" if calibrated else "tried on no other photos"
        assert doubt in top.sentence
    # A prior that makes copies without the update proves nothing.
    (row,) = rows(study(targets=2), trials(made, [of(40, t) for t in control]), {}, SETTINGS, judge)
    assert not measured(row).copied
    assert not replace(m, prior_copies=None).copied
    # Nor does a copy beside which the control is missing: it may have made it, too.
    (row,) = rows(study(targets=2), trials(made, control[:1]), {}, SETTINGS, judge)
    assert not measured(row).copied
    assert not replace(m, copies=replace(m.copies, hits=0)).copied


def test_the_worst_cell_is_where_the_face_is_closest() -> None:
    made = [trial(t, hits=(False, False), cosine=0.1 * t) for t in range(4)]
    best = replace(made[2].images[1], cosine=0.9)
    made[2] = replace(made[2], images=(made[2].images[0], best))
    (row,) = table(study(targets=4), made)
    m = measured(row)
    assert m.worst == Worst(0.9, made[2].cell.key, 1)


def test_the_worst_of_negative_cosines() -> None:
    """Zero is a cosine, not an absent one."""
    made = [trial(t, cosine=c) for t, c in enumerate((-0.5, 0.0, -0.2))]
    (row,) = table(study(targets=3), made)
    assert measured(row).worst == Worst(0.0, made[1].cell.key, 0)


def test_without_an_embedder_nothing_is_tested() -> None:
    made = [
        trial(t, hits=(None,), lpips=None, wrong=None, role=role)
        for t in range(8)
        for role in ("audit", "prior_only")
    ]
    (row,) = table(study(), made)
    m = measured(row)
    assert row.verdict == NOT_TESTED
    absent = (m.reid, m.prior, m.excess, m.rank1, m.metrics.get("lpips"), m.worst)
    assert absent == (None,) * 6
    assert m.ssim is not None
    assert m.ssim.value == pytest.approx(0.3)
    assert m.prior_ssim is not None


def test_batches_count_images_and_targets() -> None:
    made = [trial(t, hits=(True, False, False, False), batch_size=4) for t in range(3)]
    (row,) = table(study(targets=3, batch_size=4), made)
    m = measured(row)
    assert m.reid is not None
    assert (m.reid.hits, m.reid.n, m.n_targets, m.n_people) == (3, 3, 3, 12)
    assert m.reid.unit == "updates"


def test_a_tie_among_seeds_is_no_clean_word_and_no_excess() -> None:
    """One of two seeds counts as coming back, and in the control as well."""
    made = [
        replace(one, cell=replace(one.cell, seed=seed))
        for seed in range(2)
        for one in line(0 if seed else 8, 8, prior=0 if seed else 8)
    ]
    (row,) = table(replace(study(), seeds=(0, 1)), made)
    m = measured(row)
    assert m.reid
    assert m.prior
    assert m.excess
    assert (m.reid.hits, m.prior.hits, m.excess.value) == (8, 8, 0)
    assert m.excess.low < 0 < m.reid.low


def test_a_person_counts_once_whatever_the_seeds_and_updates() -> None:
    """Eight people attacked under nine seeds are eight; one lucky seed brings nobody back."""
    made = [
        replace(one, cell=replace(one.cell, seed=seed))
        for seed in range(9)
        for one in line(0 if seed else 8, 8)
    ]
    (row,) = table(replace(study(), seeds=tuple(range(9))), made)
    m = measured(row)
    assert m.reid is not None
    assert (m.reid.hits, m.reid.n, m.reid.unit) == (0, 8, "people")
    assert m.reid.high == clopper_pearson(0, 8)[1]
    assert m.excess is not None
    assert m.ssim is not None
    assert m.excess.n == m.ssim.n == 8
    # Ten photos each of four people, each photo an update of its own, are four.
    photos = [trial(t, hits=(t == 3,), people=(f"p{t % 4}",)) for t in range(40)]
    (row,) = table(study(targets=40), photos)
    reid = measured(row).reid
    assert reid is not None
    assert (reid.hits, reid.n) == (1, 4)


def test_seconds_labels_claims_and_utility() -> None:
    weak, strong = claim(8.0, "counts"), claim(2.0, "buffers")
    made = [
        trial(t, seconds=s, labels=share, claims=(spent,))
        for t, (s, share, spent) in enumerate(
            ((1.0, 1.0, strong), (9.0, None, weak), (2.0, 0.5, strong))
        )
    ]
    given = {("fresh", "none"): UTILITY}
    (row,) = rows(study(targets=3), trials(made), given, SETTINGS)
    m = measured(row)
    assert (m.seconds, m.labels) == (2.0, 0.75)
    # The weakest of all targets, with what any of them leaves out.
    assert row.claims == (replace(claim(8.0), gaps=strong.gaps + weak.gaps),)
    assert row.utility == UTILITY
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
