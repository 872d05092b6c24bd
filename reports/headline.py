"""The one sentence of a report: what was found of the defense that is deployed."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from fedaudit.reports.comparison import GRAVITY, Row, Verdict, strongest
from fedaudit.reports.results import Control, Settings
from fedaudit.reports.text import counted, p_value
from fedaudit.reports.verdicts import NOT_TESTED, model_in_words, rate_text, standing_row

Headline = tuple[Verdict, int | None]
"""The verdict, and the position of the row that it speaks of."""


def headline(
    rows: Sequence[Row],
    settings: Settings,
    deployed: Collection[str],
    checks: Sequence[Control] = (),
    missing: Sequence[str] = (),
) -> Headline:
    """The study's verdict: its worst deployed row, and what the other defenses did there.

    A study that names no deployed defense is a comparison: it says what each defense did, and
    judges none.

    Args:
        rows: The comparison; their `role` says which are deployed.
        settings: T of the verdicts.
        deployed: Labels of what is audited; empty of a comparison.
        checks: The controls, to name those that failed.
        missing: Deployed lines of the study that have no result, in words: what was not run keeps
            the study from being clean.
    """
    judged = [row for row in rows if row.role == "deployed"] if deployed else list(rows)
    tested = [row for row in judged if row.reid is not None]
    if not tested:
        return _without_people(rows, judged)
    kinds = {row.verdict.kind for row in tested}
    if "INVALID" in kinds:
        return _invalid(checks), None
    if not deployed:
        return _comparison(tested), None
    leaks = [row for row in tested if row.verdict.kind == "LEAK DEMONSTRATED"]
    if leaks:
        # Among equals, the scenario that says most about defenses.
        breadth = Counter(row.scenario for row in rows if row.reid)
        worst = max(leaks, key=lambda x: (x.strength[0], breadth[x.scenario], x.strength[2]))
        return _leak(worst, rows), rows.index(worst)
    lines = dict.fromkeys((row.scenario, row.defense) for row in tested)
    standing = [
        standing_row([row for row in tested if (row.scenario, row.defense) == line])
        for line in lines
    ]
    gravest = min((row.verdict.kind for row in standing), key=GRAVITY.index)
    alike = [row for row in standing if row.verdict.kind == gravest]
    worst = max(alike, key=lambda row: row.strength)
    verdict = worst.verdict
    sentence = f"At worst ({_where(worst)}): {verdict.sentence}"
    if missing and gravest == "NO LEAK FOUND ABOVE LIMIT":
        sentence = f"Not run: {'; '.join(missing[:SHOWN])}. What was run is clean: {sentence}"
        verdict = Verdict("INCONCLUSIVE", "", reason="not run")
    return replace(verdict, sentence=sentence), rows.index(worst)


def _invalid(checks: Sequence[Control]) -> Verdict:
    names = dict.fromkeys(c.name.partition(" (")[0] for c in checks if c.passed is False)
    which = f" ({', '.join(names)}; see Controls)" if names else ""
    return Verdict("INVALID", f"A control failed{which}: nothing can be concluded from this run.")


def _leak(worst: Row, rows: Sequence[Row]) -> Verdict:
    assert worst.measurement  # only tested rows are leaks
    assert worst.reid
    where = f"From updates of {_where(worst)}"
    if worst.measurement.searched:
        return replace(worst.verdict, sentence=f"{where}: {worst.verdict.sentence}")
    whom = rate_text(worst.reid)
    if worst.reid.unit != "people":
        whom = f"somebody in {whom}"
    sentence = f"A curious server re-identified {whom} from updates of {_where(worst)}"
    if worst.measurement.p_holm is not None:
        sentence += f"; by chance, p = {p_value(worst.measurement.p_holm)}".replace("p = <", "p <")
    sentence += "."
    others = [row for row in _strongest_by_defense(rows, worst.scenario) if row.role != "deployed"]
    if rest := "; ".join(_in_short(row) for row in others):
        sentence += f" The strongest attack on what is not deployed there: {rest}."
    return Verdict("LEAK DEMONSTRATED", sentence, worst.verdict.severity)


def _comparison(tested: Sequence[Row]) -> Verdict:
    """What was compared; no defense is named as deployed, so that none is judged."""
    scenes = Counter(row.scenario for row in tested)
    scenario = max(scenes, key=lambda name: scenes[name])
    found = _strongest_by_defense(tested, scenario)
    control = [row for row in found if row.role == "control"]
    rivals = [row for row in found if row.role != "control"]
    sentence = (
        "This study compares defenses and names none as deployed, so nothing is judged. "
        f"Under the strongest attack on each, {scenario}"
    )
    shown = [f"{_in_short(row)} (the control)" for row in control]
    if len(rivals) <= SHOWN:
        shown += [_in_short(row) for row in rivals]
    else:
        shown += [f"from {_in_short(rivals[0])} to {_in_short(rivals[-1])}"]
    return Verdict("COMPARISON", f"{sentence}: {'; '.join(shown)}.")


SHOWN = 4
"""Defenses that a sentence names one by one."""


def _strongest_by_defense(rows: Sequence[Row], scenario: str) -> list[Row]:
    """The strongest attack on each defense of a scenario, the weakest of them first."""
    here: dict[str, list[Row]] = {}
    for row in rows:
        if row.scenario == scenario and row.reid:
            here.setdefault(row.defense, []).append(row)
    best = [top for mine in here.values() if (top := strongest(mine))]
    return sorted(best, key=lambda row: row.reid.value if row.reid else 0.0)


def _in_short(row: Row) -> str:
    assert row.reid
    return f"{row.defense} {counted(row.reid)}"


def _without_people(rows: Sequence[Row], judged: Sequence[Row]) -> Headline:
    """The headline where no deployed row could be judged by re-identification."""
    explained = [
        (row.measurement.explained.update.value, row)
        for row in judged
        if row.measurement and row.measurement.explained
    ]
    if explained:  # of a recorded run, whose rows say what can be said without people
        best = max(explained, key=lambda entry: entry[0])[1]
        sentence = f"{best.attack}: {best.verdict.sentence}"
        return replace(NOT_TESTED, sentence=sentence), rows.index(best)
    if judged and not any(row.measurement and row.measurement.ssim for row in judged):
        sentence = "Nothing was tested: no attack of this study reads what was sent."
        return replace(NOT_TESTED, sentence=sentence), None
    return NOT_TESTED, None


def _where(row: Row) -> str:
    setting = f"network {row.network}, batch {row.batch_size}, defense {row.defense}"
    return f"{model_in_words(row)} ({setting}; attack {row.attack})"
