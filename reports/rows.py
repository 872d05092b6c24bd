"""The comparison: one row for each scenario × defense × attack, and attacks against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import median

from fedaudit.core.knowledge import Knowledge
from fedaudit.core.measures import Estimate, Utility
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.reports import positive_control, recorded
from fedaudit.reports.results import Contrast, Row, Settings
from fedaudit.reports.trials import Group, Trials, outcomes, paired
from fedaudit.reports.verdicts import NOT_TESTED, judge
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals

METRICS = {"ssim": True, "lpips": False, "reid": True}
"""Metrics of the contrasts, and whether higher is better for the attacker."""


def rows(
    study: Study,
    trials: Trials,
    utilities: Mapping[tuple[str, str], Utility | None],
    settings: Settings,
    gallery: Gallery | None = None,
    source: SourceFacts = COMPLETE,
) -> tuple[Row, ...]:
    """All rows that have at least one trial, with verdicts that presume valid controls.

    Args:
        study: Says which rows there should be.
        trials: What is finished.
        utilities: By (scenario, defense).
        settings: Thresholds of the verdicts.
        gallery: What was searched, where nobody knows whom updates are of.
        source: What the captures allow one to conclude.
    """
    found = []
    brought = source.truth == "brought"
    for scenario in study.scenarios:
        noise = Group(tuple(t for t in trials.of_role("noise") if t.cell.scenario == scenario.name))
        for defense in scenario.defenses:
            for attack in scenario.attacks:
                group = trials.group(scenario.name, defense.label, attack.label)
                idle = trials.idle(scenario.name, defense.label, attack.label)
                if not group and idle:
                    found.append(_untested(scenario, idle))
                if not group:
                    continue
                # The prior-only control has no update, so the first defense's serves all that have
                # none of their own, because as many images are behind their updates.
                first = scenario.defenses[0].label
                prior = trials.group(scenario.name, defense.label, attack.label, "prior_only")
                prior = prior or trials.group(scenario.name, first, attack.label, "prior_only")
                if brought and not group.tested() and (some := _identified(group)):
                    group, prior = some, _identified(prior)
                utility = utilities.get((scenario.name, defense.label))
                row = _row(scenario, group, prior, utility, settings)
                if brought:
                    row = _recorded(source, row, (group, prior, noise), settings, gallery)
                    row = _doubted(row, positive_control.succeeds(study, trials, attack.label))
                found.append(row)
    return _corrected(found)


def invalidated(rows: tuple[Row, ...], settings: Settings) -> tuple[Row, ...]:
    """The same rows where a control failed."""
    return tuple(
        replace(
            row,
            verdict=judge(row.reid, row.excess, settings, passive=True, valid=False),
        )
        if row.reid
        else row
        for row in rows
    )


def contrasts(study: Study, trials: Trials) -> tuple[Contrast, ...]:
    """Each pair of attacks on the same photos, for the first defense of each scenario."""
    found = []
    for scenario in study.scenarios:
        defense = scenario.defenses[0].label
        for a, b in combinations([attack.label for attack in scenario.attacks], 2):
            # The later attack of the study is the challenger: its advantage reads as positive.
            first, second = (trials.group(scenario.name, defense, name) for name in (b, a))
            if first and second:
                found += [_contrast(m, first, second) for m in METRICS if _has(m, first, second)]
    return tuple(found)


def _row(
    scenario: Scenario, group: Group, prior: Group, utility: Utility | None, settings: Settings
) -> Row:
    cell, people = group.cell, group.people
    tested = group.tested()
    reid = intervals.rate(outcomes(list(group.scores().values()))) if tested else None
    excess, p_value, prior_rate, prior_ssim = None, None, None, None
    ours: list[ImageScore] = []
    if prior:
        ours, theirs = paired(group, prior)
    if prior and ours:
        clusters = [score.person for score in ours]
        prior_ssim = _mean([s.metrics.get("ssim") for s in theirs], clusters)
        if tested and prior.tested():
            prior_rate = intervals.rate(outcomes(list(prior.scores().values())))
            pair = outcomes(ours), outcomes(theirs)
            excess = intervals.paired_rate_difference(*pair, clusters)
            p_value = intervals.paired_p_value(*pair, clusters)
    ranks = [s.rank for s in group.scores().values() if s.rank is not None]
    worst = max(group.scores().items(), key=lambda item: _closeness(item[1]))
    worst_trial = next(
        t for t in group.trials if (t.cell.target, t.cell.seed) == (worst[0][0], worst[0][1])
    )
    has_cosine = worst[1].cosine is not None
    labels = [t.labels_correct for t in group.trials if t.labels_correct is not None]
    model = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    verdict = NOT_TESTED
    if tested:
        passive = Knowledge.MANIPULATION not in model.grants
        verdict = judge(reid, excess, settings, passive=passive, valid=True)
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
        n_targets=len(group.trials),
        n_people=len(set(people)),
        of=group.trials[0].of,
        attacked=tuple(dict.fromkeys(s.name for t in group.trials for s in t.sent if s.read)),
        reid=reid,
        prior=prior_rate,
        excess=excess,
        rank1=intervals.rate([rank == 1 for rank in ranks]) if ranks else None,
        worst_cosine=worst[1].cosine,
        worst_cell=worst_trial.cell.key if has_cosine else None,
        worst_image=worst[0][2] if has_cosine else None,
        ssim=_mean(group.values(lambda s: s.metrics.get("ssim")), people),
        psnr=_mean(group.values(lambda s: s.metrics.get("psnr")), people),
        mse=_mean(group.values(lambda s: s.metrics.get("mse")), people),
        lpips=_mean(group.values(lambda s: s.metrics.get("lpips")), people),
        prior_ssim=prior_ssim,
        labels=sum(labels) / len(labels) if labels else None,
        seconds=median(trial.seconds for trial in group.trials),
        p_value=p_value,
        p_holm=None,
        budget=next((t.budget for t in group.trials if t.budget), None),
        utility=utility,
        verdict=verdict,
    )


def _untested(scenario: Scenario, idle: Group) -> Row:
    """The line of an attack that attacks nothing of what was shared: no number, and why."""
    cell = idle.cell
    return Row(
        scenario=cell.scenario,
        network=cell.network,
        method=cell.method,
        round=cell.round,
        batch_size=cell.batch_size,
        defense=cell.defense,
        attack=cell.attack,
        threat_model=cell.threat_model,
        adaptive=idle.adaptive,
        n_targets=0,
        n_people=0,
        of="photos",
        attacked=(),
        reid=None,
        prior=None,
        excess=None,
        rank1=None,
        worst_cosine=None,
        worst_cell=None,
        worst_image=None,
        ssim=None,
        psnr=None,
        mse=None,
        lpips=None,
        prior_ssim=None,
        labels=None,
        seconds=None,
        p_value=None,
        p_holm=None,
        budget=None,
        utility=None,
        verdict=replace(NOT_TESTED, sentence=f"Not attacked: {idle.trials[0].not_attacked}."),
    )


def _closeness(score: ImageScore) -> float:
    return -2.0 if score.cosine is None else score.cosine


def _mean(values: Sequence[float | None] | None, clusters: Sequence[str]) -> Estimate | None:
    """None where something was not measured."""
    known = [value for value in values or () if value is not None]
    return intervals.mean(known, clusters) if known and len(known) == len(clusters) else None


def _identified(group: Group) -> Group:
    """The trials of people of whom the gallery has a photo."""
    return Group(
        tuple(t for t in group.trials if all(i.reidentified is not None for i in t.images))
    )


def _recorded(
    source: SourceFacts,
    row: Row,
    groups: tuple[Group, Group, Group],
    settings: Settings,
    gallery: Gallery | None,
) -> Row:
    """The row with what is only asked of recorded updates, and a verdict that claims no more."""
    group, prior, noise = groups
    searched = any(image.nearest for image in group.scores().values())
    clients = {t.cell.target: t.images[0].person for t in group.trials}

    def explained(of: Group, other: bool = False) -> Estimate | None:
        found = {
            t.cell.target: t.explained_other if other else t.explained
            for t in of.trials
            if t.cell.target in clients
        }
        known = {k: value for k, value in found.items() if value is not None}
        return _mean(list(known.values()), [clients[k] for k in known])

    row = replace(
        row,
        model_state=source.model_states.get(row.scenario, ""),
        searched=searched,
        chance=recorded.chance_of(gallery) if searched else None,
        explained=explained(group),
        explained_other=explained(group, other=True),
        explained_prior=explained(prior),
        explained_noise=explained(noise),
        copies=recorded.copies(group.values(lambda s: s.metrics.get("psnr"))),
        prior_copies=recorded.copies(prior.values(lambda s: s.metrics.get("psnr"))),
    )
    if row.reid is None:
        return replace(row, verdict=replace(NOT_TESTED, sentence=recorded.not_identified(row)))
    verdict = row.verdict
    if searched:
        verdict = recorded.judge_search(row.reid, row.excess, row.chance, settings)
    if verdict.kind == "NO LEAK FOUND ABOVE LIMIT" and not recorded.found_something(row):
        more = "The attack explains the updates no better than its controls do: a wrong fact, such "
        more += "as a learning rate, or a protection would look alike."
        verdict = replace(verdict, sentence=f"{verdict.sentence} {more}")
    if verdict.kind != "LEAK DEMONSTRATED" and (seen := recorded.copies_text(row)):
        verdict = replace(verdict, sentence=f"{verdict.sentence} {seen}")
    return replace(row, verdict=verdict)


def _doubted(row: Row, succeeds: bool | None) -> Row:
    """The row of an attack that does not rebuild what nothing protects: clean, it says nothing."""
    if succeeds is not False or row.verdict.kind != "NO LEAK FOUND ABOVE LIMIT":
        return row
    more = "This attack did not rebuild an undefended face from the same model either."
    return replace(row, verdict=replace(row.verdict, sentence=f"{row.verdict.sentence} {more}"))


def _corrected(found: list[Row]) -> tuple[Row, ...]:
    """Holm over all rows of the study that were tested."""
    tested = [row.p_value for row in found if row.p_value is not None]
    adjusted = iter(intervals.holm(tested))
    return tuple(
        row if row.p_value is None else replace(row, p_holm=next(adjusted)) for row in found
    )


def _has(metric: str, first: Group, second: Group) -> bool:
    if metric == "reid":
        return first.tested() and second.tested()
    return all(metric in s.metrics for g in (first, second) for s in g.scores().values())


def _contrast(metric: str, first: Group, second: Group) -> Contrast:
    ours, theirs = paired(first, second)
    clusters = [score.person for score in ours]
    if metric == "reid":
        difference = intervals.paired_rate_difference(outcomes(ours), outcomes(theirs), clusters)
    else:
        difference = intervals.paired_difference(
            _numbers(ours, metric), _numbers(theirs, metric), clusters
        )
    return Contrast(
        scenario=first.cell.scenario,
        defense=first.cell.defense,
        metric=metric,
        higher_is_better=METRICS[metric],
        first=first.cell.attack,
        second=second.cell.attack,
        difference=difference,
        seconds_first=median(t.seconds for t in first.trials),
        seconds_second=median(t.seconds for t in second.trials),
    )


def _numbers(scores: list[ImageScore], metric: str) -> list[float]:
    return [score.metrics[metric] for score in scores]
