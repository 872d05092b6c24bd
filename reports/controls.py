"""The controls of a run: what must succeed, what must not, and whether it was so."""

from fedaudit.core.measures import Rate
from fedaudit.core.scenario import Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.reports import recorded
from fedaudit.reports.ceilings import known_originals
from fedaudit.reports.comparison import Row
from fedaudit.reports.negative_controls import negative_control
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.positive_control import positive_control
from fedaudit.reports.results import Ceiling, Control
from fedaudit.reports.text import number
from fedaudit.reports.trials import Trials
from fedaudit.reports.verdicts import rate_text
from fedaudit.scoring.copies import ENOUGH
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals
from fedaudit.stats.intervals import clopper_pearson


def controls(
    study: Study,
    trials: Trials,
    rows: tuple[Row, ...],
    gallery: Gallery | None,
    source: SourceFacts = COMPLETE,
    known: tuple[Ceiling, ...] = (),
) -> tuple[Control, ...]:
    """Calibration, identity ceiling, positive, noise, wrong client, prior-only.

    Args:
        study: What was asked.
        trials: What came of it.
        rows: The same as a comparison.
        gallery: Everybody's reference photos, if anybody has some.
        source: What a recorded run says of itself.
        known: Of `ceilings`.
    """
    fmr = gallery.fmr if gallery else study.fmr
    # A search of the whole gallery has as many chances as it has people.
    has_search = any(row.measurement and row.measurement.searched for row in rows)
    noise_fmr = fmr
    if has_search and gallery and (chance := recorded.chance_of(gallery)):
        noise_fmr = max(fmr, chance.high / 10)
    return (
        _calibration(study, gallery),
        *_copies(rows),
        *known_originals(study, known),
        positive_control(study, trials, rows, source),
        *_explanation(rows),
        negative_control(
            "noise (random images)",
            trials.of_role("noise"),
            lambda score: score.reidentified,
            noise_fmr,
        ),
        negative_control(
            "wrong client (the reconstruction against another client's person)",
            trials.of_role("audit"),
            lambda score: score.wrong_reidentified,
            fmr,
        ),
        *_prior_only(study, trials, rows),
        *_update_noise(study, trials),
        *_overlaps(source),
    )


def any_failed(checks: tuple[Control, ...]) -> bool:
    """Whether a control failed, which makes the run invalid."""
    return any(control.passed is False for control in checks)


def _calibration(study: Study, gallery: Gallery | None) -> Control:
    name, scene = "FMR calibration", "all"
    if gallery is None:
        return Control(name, scene, "no identities, or no embedder", "a gallery of people", None)
    # Too few pairs for what was asked are held against a higher rate, which is the one in use.
    fmr = gallery.fmr if gallery.threshold is not None else study.fmr
    requirement = f"at least {3 / fmr:,.0f} impostor pairs for an FMR of {fmr:g}"
    if fmr != study.fmr:
        requirement += f"; the study asks for {study.fmr:g}, which takes {3 / study.fmr:,.0f}"
    outcome = f"{gallery.impostor_pairs:,} impostor pairs of {len(gallery.people)} people"
    if gallery.threshold is None:
        return Control(name, scene, f"{outcome}: too few, no threshold", requirement, None)
    outcome += f"; cosine threshold {gallery.threshold:.3f} at an FMR of {gallery.fmr:g}"
    if gallery.rates:
        real = gallery.rates.false_matches
        low, high = (f"{x:.2g}" if x >= 1e-4 else "less than 0.0001" for x in (real.low, real.high))
        outcome += f" (95 % interval over people {low} to {high})"
    return Control(name, scene, outcome, requirement, True)


def _copies(rows: tuple[Row, ...]) -> tuple[Control, ...]:
    """What counts as a copy: held where a copy is proof, not judged where nothing calibrates it."""
    calibrations = (row.measurement.copy_calibration for row in rows if row.measurement)
    calibration = next((one for one in calibrations if one.false_copies), None)
    if calibration is None or calibration.false_copies is None:
        return ()
    name = "copies (what counts as the very photo)"
    requirement = f"nobody's other photos reach it, of at least {ENOUGH} people"
    outcome = f"PSNR of {calibration.psnr:.1f} dB, which other photos reach of "
    outcome += rate_text(calibration.false_copies)
    return (Control(name, "all", outcome, requirement, calibration.proves or None),)


def _explanation(rows: tuple[Row, ...]) -> tuple[Control, ...]:
    """Of recorded updates: how well reconstructions explain them, and what explains them as well.

    Held or not judged, never failed: an attack that explains its update no better than another
    client's has found nothing, which makes no run invalid.
    """
    entries = []
    for row in rows:
        shares_of = row.measurement and row.measurement.explained
        if not shares_of:
            continue
        parts = [
            ("its update", shares_of.update),
            ("another client's update", shares_of.other),
            ("invented people's images", shares_of.prior),
            ("random images", shares_of.noise),
        ]
        shares = [f"{name} {recorded.mean_text(value)}" for name, value in parts if value]
        name = f"explained share of the update ({row.attack}; cosine, 1 is all)"
        requirement = "its update more than the controls; this is no likeness of faces"
        success = shares_of.beyond_controls or None
        entries.append(Control(name, row.scenario, "; ".join(shares), requirement, success))
    return tuple(entries)


def _prior_only(study: Study, trials: Trials, rows: tuple[Row, ...]) -> tuple[Control, ...]:
    """The same attack on the update of an invented person: what every rate is compared with.

    A line for each scenario and attack, of the defense under which the control matches most.
    """
    entries = []
    for scenario, attack in ((s, a) for s in study.scenarios for a in s.attacks):
        place = scenario.name, attack.label
        candidates = [
            (m.prior.low, m.prior.value, m.prior, row)
            for row in rows
            if (row.scenario, row.attack) == place and (m := row.measurement) and m.prior
        ]
        if not candidates:
            continue
        _, _, rate, row = max(candidates, key=lambda entry: entry[:2])
        m = row.measurement
        assert m  # only measured rows are here
        group = trials.group(scenario.name, row.defense, attack.label, "prior_only")
        of = ", ".join(sorted({t.control for t in group.trials} - {""}))
        where = (
            f"; highest of {len(candidates)} defenses: {defense_name(row.defense)}"
            if len(candidates) > 1
            else ""
        )
        ssim = f", SSIM {number(m.prior_ssim.value)}" if m.prior_ssim else ""
        bound = f"; lower bound at most {study.reid_limit:.0%}".replace("%", " %")
        entries.append(
            Control(
                name=f"prior-only ({attack.label} on {of or 'noise'})",
                scenario=scenario.name,
                outcome=f"{rate_text(rate)}{ssim}{where}{_few(rate, study.reid_limit)}",
                requirement="what a leak must exceed" + ("" if m.searched else bound),
                passed=None if m.searched else _at_most(rate, study.reid_limit),
            )
        )
    return tuple(entries)


def _at_most(rate: Rate, limit: float) -> bool | None:
    """Whether the rate's lower end is within the limit; None where that of n of n would be, too."""
    return rate.low <= limit if clopper_pearson(rate.n, rate.n)[0] > limit else None


def _few(rate: Rate, limit: float) -> str:
    return "; so few decide nothing" if _at_most(rate, limit) is None else ""


def _overlaps(source: SourceFacts) -> tuple[Control, ...]:
    """Priors that know the audited photos; not judged, as no row rests on what they find."""
    requirement = "of nobody who is audited"
    return tuple(
        Control(
            f"photos of the prior ({attack})",
            "all",
            f"{why}: no word rests on it",
            requirement,
            None,
        )
        for attack, why in source.overlaps.items()
    )


def _update_noise(study: Study, trials: Trials) -> tuple[Control, ...]:
    """The same attacks on noise in place of the update: a line a scenario, over all attacks."""
    entries = []
    for scenario in study.scenarios:
        mine = [t for t in trials.of_role("update_noise") if t.cell.scenario == scenario.name]
        scores = [s for t in mine for s in t.images if s.reidentified is not None]
        if not scores or any(s.nearest for s in scores):
            continue
        people: dict[str, bool] = {}
        for score in scores:
            people[score.person] = people.get(score.person, False) or bool(score.reidentified)
        rate, targets = intervals.rate([*people.values()]), len({t.cell.target for t in mine})
        count = "1 target" if targets == 1 else f"{targets} targets"
        entries.append(
            Control(
                name=f"noise in place of the update ({count}, all attacks)",
                scenario=scenario.name,
                outcome=f"{rate_text(rate)}{_few(rate, study.reid_limit)}",
                requirement=f"lower bound at most {study.reid_limit:.0%}".replace("%", " %"),
                passed=_at_most(rate, study.reid_limit),
            )
        )
    return tuple(entries)
