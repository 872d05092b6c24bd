"""The comparison: one row for each scenario × defense × attack."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import inf
from statistics import median

from fedaudit.core.claims import worst
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.measures import Estimate, MetricFacts, Rate, Utility
from fedaudit.core.scenario import Choice, Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.reports.comparison import Row, Verdict, role_of
from fedaudit.reports.effort import effort
from fedaudit.reports.identity_tests import foreign, group_test, identity_tests
from fedaudit.reports.looks import measurement_at_look
from fedaudit.reports.measurement import Measurement, Worst
from fedaudit.reports.positive_control import lacks_power
from fedaudit.reports.power import with_power
from fedaudit.reports.recorded_rows import row_of_recording, with_power_on_known_faces
from fedaudit.reports.results import Settings
from fedaudit.reports.second_opinions import second_opinions
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import Scores, first_of_all, mean, outcomes, rate_of, rate_of_any
from fedaudit.reports.verdicts import NOT_TESTED, judge
from fedaudit.scoring.copies import NO_CALIBRATION
from fedaudit.scoring.identity import Gallery
from fedaudit.scoring.metrics import declarations
from fedaudit.stats import intervals
from fedaudit.study.reach import place_of


def rows(
    study: Study,
    trials: Trials,
    utilities: Mapping[tuple[str, str], Utility | None],
    settings: Settings,
    gallery: Gallery | None = None,
    source: SourceFacts = COMPLETE,
    units: Mapping[str, int] | None = None,
) -> tuple[Row, ...]:
    """All rows that have at least one trial, with verdicts that presume valid controls.

    Args:
        study: What was asked.
        trials: What came of it.
        utilities: By (scenario, defense).
        settings: Thresholds of the verdicts.
        gallery: Whose ceiling attacks are held against; and what was searched, where nobody knows
            whom updates are of.
        source: What a recorded run says of itself.
        units: Independent units that the data can give at most, where that is known: by scenario,
            or by `place_of` where the defense leaves fewer.
    """
    table = []
    has_truth = source.truth == "brought"
    calibration = gallery.copies if gallery else NO_CALIBRATION
    ceiling = gallery.ceiling if gallery else None
    tests, primary = identity_tests(study, trials, source)
    for scenario in study.scenarios:
        noise = Group(tuple(t for t in trials.of_role("noise") if t.cell.scenario == scenario.name))
        for defense, attack in product(scenario.defenses, scenario.attacks):
            group = trials.group(scenario.name, defense.label, attack.label)
            role = role_of(study, defense)
            if not group:
                if idle := trials.idle(scenario.name, defense.label, attack.label):
                    why = f"Not attacked: {idle.trials[0].not_attacked}."
                    table.append(replace(_row(idle, replace(NOT_TESTED, sentence=why)), role=role))
                continue
            prior = trials.group(scenario.name, defense.label, attack.label, "prior_only")
            if has_truth and not group.tested() and (some := _with_identity(group)):
                group, prior = some, _with_identity(prior)
            utility = utilities.get((scenario.name, defense.label))
            line = (scenario.name, defense.label, attack.label)
            measurement = _measurement(group, prior)
            if study.sequential:
                measurement = measurement_at_look(measurement, group, prior, scenario)
            measurement = replace(
                measurement,
                copies=_copies(group, calibration.psnr),
                prior_copies=_copies(prior, calibration.psnr)
                if has_truth or _beside(group, prior)
                else None,
                copy_calibration=calibration,
                foreign=foreign(prior, gallery.threshold) if gallery else None,
                identity=tests.get(line),
                prior_identity=group_test(prior, by_lot=not has_truth),
                effort=effort(group, trials.group(*line, "half_steps")),
            )
            model = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
            passive = Knowledge.MANIPULATION not in model.grants
            known_units = units or {}
            most = known_units.get(place_of(*line[:2]), known_units.get(scenario.name))
            verdict = judge(measurement, settings, passive=passive, valid=True, most=most)
            row = _row(group, verdict, measurement, utility)
            row = replace(
                row,
                role=role,
                undefended=defense.name == "none",
                primary=line == primary,
                attack_settings=_stated(attack),
            )
            if overlap := source.overlaps.get(attack.label):
                row = replace(row, verdict=_overlapping(row.verdict, overlap))
            if has_truth:
                row = row_of_recording(source, row, (group, prior, noise), settings, gallery)
                row = with_power_on_known_faces(
                    row, lacks_power(study, trials, attack.label, ceiling, measurement.effort)
                )
            table.append(row)
    return with_power(table, ceiling)


def _stated(attack: Choice) -> str:
    """One text of all that the study says of an attack, whatever the order it says it in."""
    settings = (f"{name}={value!r}" for name, value in sorted(attack.settings.items()))
    return f"{attack.name}({', '.join((*settings, f'adapt={attack.adapt!r}'))})"


def _overlapping(verdict: Verdict, why: str) -> Verdict:
    """Verdict on an attack whose prior has seen the photos: no evidence about the update."""
    if verdict.kind not in {"LEAK DEMONSTRATED", "NO LEAK FOUND ABOVE LIMIT"}:
        return verdict
    lead = verdict.sentence.partition("; no leak found above")[0].rstrip(".")
    sentence = f"{lead}. This says nothing of the update: {why}; use other people or another prior."
    return Verdict("INCONCLUSIVE", sentence, reason="prior overlap")


def invalidate(rows: tuple[Row, ...], settings: Settings) -> tuple[Row, ...]:
    """The rows of a run in which a control failed: INVALID."""
    return tuple(
        replace(row, verdict=judge(row.measurement, settings, passive=True, valid=False))
        if row.reid
        else row
        for row in rows
    )


def _row(
    group: Group,
    verdict: Verdict,
    measurement: Measurement | None = None,
    utility: Utility | None = None,
) -> Row:
    cell = group.cell
    return Row(
        scenario=cell.scenario,
        network=cell.network,
        method=cell.method,
        round=cell.round,
        batch_size=cell.batch_size,
        defense=cell.defense,
        attack=cell.attack,
        threat_model=cell.threat_model,
        adaptive=group.adaptive,
        measurement=measurement,
        claims=worst(t.claims for t in group.trials) if measurement else (),
        utility=utility,
        verdict=verdict,
    )


def _measurement(group: Group, prior: Group) -> Measurement:
    people, scores = group.people, group.scores()
    labels = [t.labels_correct for t in group.trials if t.labels_correct is not None]
    ranks = [s.rank for s in scores.values() if s.rank is not None]
    names = dict.fromkeys(name for score in scores.values() for name in score.metrics)
    means = {m.name: _mean(scores, group.metric(m.name), m) for m in declarations(names)}
    measurement = Measurement(
        n_targets=len(group.trials),
        n_people=len(set(people)),
        of=group.trials[0].of,
        attacked=tuple(dict.fromkeys(s.name for t in group.trials for s in t.sent if s.read)),
        metrics={name: mean for name, mean in means.items() if mean},
        seconds=median(trial.seconds for trial in group.trials),
        labels=sum(labels) / len(labels) if labels else None,
        reid=rate_of(group) if group.tested() else None,
        rank1=rate_of(group, first_of_all) if ranks else None,
        originals=_originals(group),
        worst=_worst(group),
        others=second_opinions(group, prior) if group.tested() else {},
    )
    ours, theirs = outcomes(scores, prior.scores())
    if not ours:
        return measurement
    if "ssim" in names:
        ssim = _mean(prior.scores(), prior.metric("ssim"), *declarations({"ssim"}))
        measurement = replace(measurement, prior_ssim=ssim)
    if not (group.tested() and prior.tested()):
        return measurement
    every = range(len(ours))
    return replace(
        measurement,
        prior=rate_of(prior),
        excess=intervals.paired_rate_difference(ours, theirs, every),
    )


def _originals(group: Group) -> Rate | None:
    """How many of the originals the judge knows; they were tried under one seed."""
    first = Group(tuple(t for t in group.trials if all(i.original is not None for i in t.images)))
    if not first or {t.cell.target for t in first.trials} != {t.cell.target for t in group.trials}:
        return None
    return rate_of(first, lambda score: bool(score.original))


def _beside(group: Group, prior: Group) -> bool:
    """Whether the control was run on every target: one that is missing may have made the copy."""
    return {t.cell.target for t in group.trials} <= {t.cell.target for t in prior.trials}


def _copies(group: Group, least: float) -> Rate | None:
    """Of how many units a photo came back as itself; None where photos are not known.

    One seed is enough, for and against: chance does not copy, and a prior that did so once may.
    """
    if not group or group.trials[0].of != "photos" or group.metric("psnr") is None:
        return None
    return rate_of_any(group, lambda score: score.metrics["psnr"] >= least)


def _worst(group: Group) -> Worst | None:
    """The first of those with the highest cosine."""
    pairs = [
        (s.cosine, t.cell.key, k)
        for t in group.trials
        for k, s in enumerate(t.images)
        if s.cosine is not None
    ]
    return Worst(*max(pairs, key=lambda entry: entry[0])) if pairs else None


def _mean(scores: Scores, values: Sequence[float] | None, metric: MetricFacts) -> Estimate | None:
    """Over units; None where something was not measured."""
    low = -inf if metric.low is None else metric.low
    high = inf if metric.high is None else metric.high
    return mean(scores, values, (low, high)) if values else None


def _with_identity(group: Group) -> Group:
    """The trials of people of whom the gallery has a photo."""
    return Group(
        tuple(t for t in group.trials if all(i.reidentified is not None for i in t.images))
    )
