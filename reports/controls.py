"""The controls of a run: what must succeed, what must not, and whether it was so."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedaudit.core.measures import Estimate
from fedaudit.core.scenario import Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import POSITIVE
from fedaudit.reports import recorded
from fedaudit.reports.comparison import Row
from fedaudit.reports.effort import effort
from fedaudit.reports.identity_tests import ALPHA, group_test
from fedaudit.reports.measurement import Effort
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.power import POWER, other_ways
from fedaudit.reports.results import Ceiling, Control
from fedaudit.reports.text import NBSP, percent, signed
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import difference, outcomes, rate_of
from fedaudit.reports.verdicts import rate_text
from fedaudit.scoring.copies import ENOUGH
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals

MARGIN = 0.1
"""SSIM over prior-only that counts on a recorded run, whose control has few faces: by chance alone
all of them may lie on one side, by hundredths."""

BLIND = (
    ": a judge that does not know the originals sees no leak. Its weights may have been altered "
    "(fetch them again, and run with another --output); else the photos are too small or too "
    "blurred: raise size, or lower ceiling_floor and take a low rate for little evidence"
)
"""What a failed identity ceiling means, and what to do."""


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
    noise = [(s.person, s.reidentified) for t in trials.of_role("noise") for s in t.images]
    scores = [s for t in trials.of_role("audit") for s in t.images]
    wrong = [(s.person, s.wrong_reidentified) for s in scores]
    # A search of the whole gallery has as many chances as it has people.
    has_search = any(row.measurement and row.measurement.searched for row in rows)
    noise_fmr = fmr
    if has_search and gallery and (chance := recorded.chance_of(gallery)):
        noise_fmr = max(fmr, chance.high / 10)
    return (
        _calibration(study, gallery),
        *_copies(rows),
        *_known_originals(study, known),
        _positive(study, trials, rows, source),
        *_explanation(rows),
        _negative("noise (random images)", noise, noise_fmr),
        _negative("wrong client (the reconstruction against another client's person)", wrong, fmr),
        *_prior_only(study, trials, rows),
        *_update_noise(study, trials),
        *_overlaps(source),
    )


def ceilings(
    study: Study, galleries: Mapping[str, Gallery | None], judge: str = ""
) -> tuple[Ceiling, ...]:
    """What a judge (the first unless named) recognizes of the originals.

    No attack can be seen to do better. One line for all scenarios, or one each where their
    federations leave different galleries.
    """
    judge = judge or study.judges[0].label
    ceilings = [_ceiling(study, name, known) for name, known in galleries.items() if known]
    lines = [replace(line, judge=judge) for line in ceilings if line]
    if len({replace(line, scenario="all") for line in lines}) == 1:
        return (replace(lines[0], scenario="all"),)
    return tuple(lines)


def _ceiling(study: Study, scenario: str, gallery: Gallery) -> Ceiling | None:
    if gallery.threshold is None:
        return None
    rates = gallery.rates
    return Ceiling(
        scenario=scenario,
        image_size=study.size,
        reid=rates.reidentified
        if rates
        else intervals.rate_of(gallery.ceiling_hits, gallery.ceiling_n, "photos"),
        rank1=rates.first
        if rates
        else intervals.rate_of(gallery.ceiling_first, gallery.ceiling_n, "photos"),
        threshold=gallery.threshold,
        fmr=gallery.fmr,
        impostor_pairs=gallery.impostor_pairs,
        gallery_people=gallery.candidates,
        gallery_photos=gallery.photos,
    )


def any_failed(checks: tuple[Control, ...]) -> bool:
    """Whether a control failed, which makes the run invalid."""
    return any(control.passed is False for control in checks)


def _calibration(study: Study, gallery: Gallery | None) -> Control:
    name, scene = "FMR calibration", "all"
    if gallery is None:
        return Control(name, scene, "no identities, or no embedder", "a gallery of people", None)
    requirement = f"at least {3 / study.fmr:,.0f} impostor pairs for an FMR of {study.fmr:g}"
    outcome = f"{gallery.impostor_pairs:,} impostor pairs of {len(gallery.people)} people"
    if gallery.threshold is None:
        return Control(name, scene, f"{outcome}: too few, no threshold", requirement, None)
    outcome += f"; cosine threshold {gallery.threshold:.3f} at an FMR of {gallery.fmr:g}"
    if gallery.rates:
        real = gallery.rates.false_matches
        outcome += f" (95 % interval over people {real.low:.2g} to {real.high:.2g})"
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


def _known_originals(study: Study, lines: tuple[Ceiling, ...]) -> tuple[Control, ...]:
    """Whether the judge knows the originals: one that does not would find no leak anywhere."""
    name = "identity ceiling (the originals themselves, re-identified)"
    requirement = f"at least {study.ceiling_floor:.0%} of them (ceiling_floor)".replace("%", " %")
    if not lines:
        return (Control(name, "all", "not run", requirement, None),)
    return tuple(
        Control(
            name,
            line.scenario,
            rate_text(line.reid) + ("" if success else BLIND),
            requirement,
            success,
        )
        for line in lines
        for success in [line.reid.value >= study.ceiling_floor]
    )


def _positive(
    study: Study, trials: Trials, rows: tuple[Row, ...], source: SourceFacts = COMPLETE
) -> Control:
    """Whether any attack rebuilds what nothing protects: the pipeline must be able to see a leak.

    Judged by SSIM, not by re-identification: a run with few targets, or faces too small to be told
    apart, must still show it.

    Of a simulated study the undefended rows with one image say so; of a recorded run, steps that
    the auditor made itself from what the server had sent.
    """
    if source.positive:
        return _of_recorded(study, trials, source.positive)
    name = "positive (undefended, batch 1: the attack must succeed)"
    requirement = "SSIM above the prior-only control's, by an interval that excludes 0"
    labels = {c.label for s in study.scenarios for c in s.defenses if c.name == "none"}
    lines = [row for row in rows if row.defense in labels and row.batch_size == 1]
    gains = [
        (gain.low, gain, m.ssim.value, row)
        for row in lines
        if (m := row.measurement)
        and m.ssim
        and (gain := _gain(trials, row.scenario, row.defense, row.attack))
    ]
    if not gains:
        return Control(name, "all", "no undefended row with batch 1", requirement, None)
    _, gain, ssim, best = max(gains, key=lambda item: item[0])
    outcome = f"SSIM {ssim:.2f} by {best.attack}, {_over(gain)}"
    # One target has no interval, and that of two is twelve errors wide: neither held nor failed.
    if gain.n < 2 or (gain.n == 2 and gain.low <= 0 < gain.value):
        few = "one target" if gain.n < 2 else "two targets"
        return Control(name, best.scenario, f"{outcome}; {few} decide nothing", requirement, None)
    return Control(name, best.scenario, outcome, requirement, gain.low > 0)


def succeeds(study: Study, trials: Trials, attack: str) -> bool | None:
    """Whether an attack of a recorded run rebuilds what nothing protects; None if not tried."""
    if not study.scenarios:
        return None
    first = study.scenarios[0]
    gain = _gain(trials, first.name, first.defenses[0].label, attack, control=True)
    return None if gain is None else gain.low > MARGIN


def lacks_power(
    study: Study, trials: Trials, attack: str, ceiling: float | None, searched: Effort | None
) -> str:
    """Why an attack of a recorded run that finds nobody says nothing; "" where it says something.

    The control is the auditor's own: known faces, trained on as the clients trained, no defense;
    searched for in the same ways as the recorded updates (`searched`).
    """
    first = study.scenarios[0]
    place = (first.name, first.defenses[0].label, attack)
    group, prior = (trials.group(*place, role) for role in POSITIVE)
    if not group.tested() or not prior.tested():
        return "whether the attack re-identifies known faces without a defense was not tried"
    rate, test = rate_of(group), group_test(group, by_lot=True)
    ours, theirs = outcomes(group.scores(), prior.scores())
    above = intervals.paired_rate_difference(ours, theirs, range(len(ours))).low > 0
    finding = f"of known faces without a defense it re-identifies {rate_text(rate)}"
    if not above and (test is None or test.p_value > ALPHA):
        return f"{finding}, which may be chance"
    if ceiling is None or rate.value < POWER * ceiling:
        bar = percent(POWER * (ceiling or 1.0)).replace(NBSP, " ")
        return f"{finding}, and only {bar} or more show that it works"
    other = other_ways(searched, effort(group, Group(())), rate.n * POWER * ceiling)
    return f"{finding}, but {other}" if other else ""


def _of_recorded(study: Study, trials: Trials, faces: str) -> Control:
    name = "positive (known faces, trained on as the clients trained, no defense)"
    requirement = f"SSIM above the prior-only control's by {MARGIN:g}, by an interval"
    first = study.scenarios[0]
    results = []
    for attack in first.attacks:
        place = (first.name, first.defenses[0].label, attack.label)
        gain = _gain(trials, *place, control=True)
        values = trials.group(*place, "positive").metric("ssim")
        if gain and values:
            group = trials.group(*place, "positive")
            suffix = f", re-identified {rate_text(rate_of(group))}" if group.tested() else ""
            ssim = f"SSIM {sum(values) / len(values):.2f}, {_over(gain)}"
            results.append(f"{attack.label} {ssim}{suffix}")
    if not results:
        return Control(name, first.name, "not run", requirement, None)
    success = any(succeeds(study, trials, attack.label) for attack in first.attacks)
    return Control(name, first.name, f"on {faces}: {'; '.join(results)}", requirement, success)


def _gain(
    trials: Trials, scenario: str, defense: str, attack: str, *, control: bool = False
) -> Estimate | None:
    """SSIM over the prior-only control's, on the same images."""
    roles = ("positive", "positive_prior") if control else ("audit", "prior_only")
    ours, theirs = (trials.group(scenario, defense, attack, role).scores() for role in roles)
    return difference(ours, theirs, lambda score: score.metrics.get("ssim", 0.0), (-2, 2))


def _over(gain: Estimate) -> str:
    return f"{signed(gain.value)} over prior-only ({signed(gain.low)} to {signed(gain.high)})"


def _negative(name: str, hits: Sequence[tuple[str, bool | None]], fmr: float) -> Control:
    """A control in which nobody may be matched: `hits` are a person and an outcome an image.

    A person counts once, and has matched if any image did: so many tries have as many chances.
    """
    tries: dict[str, list[bool]] = {}
    for person, hit in hits:
        if hit is not None:
            tries.setdefault(person, []).append(hit)
    most = max((len(mine) for mine in tries.values()), default=1)
    limit = 1 - (1 - min(1.0, 10 * fmr)) ** most
    requirement = f"lower bound at most {percent(limit)}, what ten times the FMR gives in "
    requirement = f"{requirement}{most} {'try' if most == 1 else 'tries'} a person"
    requirement = requirement.replace(NBSP, " ")
    if not tries:
        return Control(name, "all", "not run", requirement, None)
    rate = intervals.rate([any(mine) for mine in tries.values()])
    # Reconstructions of one photo by several attacks resemble each other, so few false matches can
    # repeat; a control only fails where the rate is well above what calibration promises.
    return Control(name, "all", rate_text(rate), requirement, rate.low <= limit)


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
        low, _, rate, row = max(candidates, key=lambda entry: entry[:2])
        m = row.measurement
        assert m  # only measured rows are here
        group = trials.group(scenario.name, row.defense, attack.label, "prior_only")
        of = ", ".join(sorted({t.control for t in group.trials} - {""}))
        where = (
            f"; highest of {len(candidates)} defenses: {defense_name(row.defense)}"
            if len(candidates) > 1
            else ""
        )
        ssim = f", SSIM {m.prior_ssim.value:.2f}" if m.prior_ssim else ""
        bound = f"; lower bound at most {study.reid_limit:.0%}".replace("%", " %")
        entries.append(
            Control(
                name=f"prior-only ({attack.label} on {of or 'noise'})",
                scenario=scenario.name,
                outcome=f"{rate_text(rate)}{ssim}{where}",
                requirement="what a leak must exceed" + ("" if m.searched else bound),
                passed=None if m.searched else low <= study.reid_limit,
            )
        )
    return tuple(entries)


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
        entries.append(
            Control(
                name=f"noise in place of the update ({targets} targets, all attacks)",
                scenario=scenario.name,
                outcome=rate_text(rate),
                requirement=f"lower bound at most {study.reid_limit:.0%}".replace("%", " %"),
                passed=rate.low <= study.reid_limit,
            )
        )
    return tuple(entries)
