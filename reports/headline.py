"""The one sentence of a report: what was found of the defense that is deployed."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from fedaudit.core.printable import first_few
from fedaudit.reports.comparison import GRAVITY, Row, Verdict, strongest
from fedaudit.reports.findings import open_claims
from fedaudit.reports.guarantees import UNSTATED
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Control, Settings
from fedaudit.reports.text import NBSP, counted, p_value, percent
from fedaudit.reports.verdicts import (
    NOT_TESTED,
    defense_in_words,
    model_in_words,
    originals_text,
    rate_text,
    standing_row,
)

Headline = tuple[Verdict, int | None]
"""The verdict, and the position of the row that it speaks of."""


def headline(
    rows: Sequence[Row],
    settings: Settings,
    deployed: Collection[str],
    checks: Sequence[Control] = (),
    missing: Sequence[str] = (),
    unattacked: str = "",
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
        unattacked: Why nothing was attacked, where that is known.
    """
    if not rows:
        why = unattacked or "no attack finished"
        return replace(NOT_TESTED, sentence=f"Re-identification was not tested: {why}."), None
    verdict, place = _verdict(rows, settings, deployed, checks, missing)
    note = verdict.kind != "INVALID" and _claims(row for row in rows if row.role == "deployed")
    return (replace(verdict, sentence=f"{verdict.sentence}{note}") if note else verdict), place


def _verdict(
    rows: Sequence[Row],
    settings: Settings,
    defenses: Collection[str],
    checks: Sequence[Control],
    missing: Sequence[str],
) -> Headline:
    lines_judged = [row for row in rows if row.role == "deployed"] if defenses else list(rows)
    rated = [row for row in lines_judged if row.reid is not None]
    if not rated:
        return _without_people(rows, lines_judged)
    kinds = {row.verdict.kind for row in rated}
    if "INVALID" in kinds:
        return _invalid(checks), None
    if not defenses:
        return _comparison(rated), None
    leaks = [row for row in rated if row.verdict.kind == "LEAK DEMONSTRATED"]
    if leaks:
        # Among equals, the scenario that says most about defenses.
        breadth = Counter(row.scenario for row in rows if row.reid)
        worst = max(leaks, key=lambda x: (x.strength[0], breadth[x.scenario], x.strength[2]))
        return _leak(worst, rows), rows.index(worst)
    lines = dict.fromkeys((row.scenario, row.defense) for row in rated)
    standing = [
        standing_row([row for row in rated if (row.scenario, row.defense) == line])
        for line in lines
    ]
    gravest = min((row.verdict.kind for row in standing), key=GRAVITY.index)
    alike = [row for row in standing if row.verdict.kind == gravest]
    worst = max(alike, key=lambda row: row.strength)
    verdict, clean = worst.verdict, gravest == "NO LEAK FOUND ABOVE LIMIT"
    sentence = _clean(worst, rows, settings) if clean else _open(worst)
    if missing and clean:
        sentence = f"Not run: {'; '.join(missing[:SHOWN])}. What was run is clean. {sentence}"
        verdict = Verdict("INCONCLUSIVE", "", reason="not run")
    return replace(verdict, sentence=sentence), rows.index(worst)


def _claims(lines: Iterable[Row]) -> str:
    """What is wrong with the privacy claims of what is deployed; "" where nothing is.

    Whoever reads the verdict quotes the ε beside it.
    """
    sentences: dict[str, None] = {}
    for row in lines:
        for claim in open_claims(row):
            gaps = ", ".join(dict.fromkeys(gap.what for gap in claim.gaps)) or "nothing is covered"
            fault = "is broken" if claim.broken else "does not cover all that was sent"
            sentences[f" The privacy claim of {defense_name(row.defense)} {fault}: {gaps}."] = None
    return "".join(sentences)


def _invalid(checks: Sequence[Control]) -> Verdict:
    names = dict.fromkeys(c.name.partition(" (")[0] for c in checks if c.passed is False)
    which = f" ({', '.join(names)}; see Controls)" if names else ""
    return Verdict("INVALID", f"A control failed{which}: nothing can be concluded from this run.")


def _leak(worst: Row, rows: Sequence[Row]) -> Verdict:
    assert worst.measurement  # only tested rows are leaks
    assert worst.reid
    if worst.measurement.searched:
        sentence = f"From updates of {_where(worst)}: {worst.verdict.sentence}"
        return replace(worst.verdict, sentence=sentence)
    whom = rate_text(worst.reid)
    if worst.reid.unit != "people":
        whom = f"somebody in {whom}"
    source = f"from updates of {model_in_words(worst)}"
    if worst.defense in UNSTATED:
        lead = "Without a defense, a" if worst.undefended else "A"
        sentence = f"{lead} curious server re-identified {whom} {source}."
    else:
        sentence = f"{_name_defense(worst)}, let a curious server re-identify {whom} {source}."
    sentence += _without(worst, rows)
    if most := worst.measurement.originals:
        sentence += (
            f" Of the original photos {most.hits} of {most.n} are recognized: no more can be."
        )
    if (p := worst.measurement.p_holm) is not None:
        size = p_value(p).replace("<", "less than ").replace(NBSP, "")
        sentence += (
            " By chance, what came back would fit these people as well with a probability of "
            f"{size}."
        )
    return Verdict("LEAK DEMONSTRATED", sentence, worst.verdict.severity)


def _clean(row: Row, rows: Sequence[Row], settings: Settings) -> str:
    """Headline of a row without a leak: how many came back, and the rate without the defense."""
    assert row.reid
    assert row.measurement
    rate = rate_text(row.reid) + originals_text(row.measurement)
    whom = f"nobody be re-identified: {rate}" if not row.reid.hits else f"{rate} be re-identified"
    limit = percent(settings.reid_limit).replace(NBSP, " ")
    lead = f"{_name_defense(row)}, let {whom}; no leak found above {limit}."
    return lead + _without(row, rows)


def _open(row: Row) -> str:
    """Headline of an inconclusive row or a trace; copies beside it are named first."""
    if row.undefended:
        subject = "Without a defense"
    elif row.defense in UNSTATED:
        subject = f"At worst ({_where(row)})"
    else:
        subject = _name_defense(row)
    return f"{subject}: {_copies(row)}{row.verdict.sentence}"


def _copies(row: Row) -> str:
    """That photos came back whole, where their control made no copy; "" otherwise.

    Whoever sees the photo beside its copy, and reads that nothing is settled, must learn why.
    """
    m = row.measurement
    if m is None or not m.copies or not m.copies.hits or not m.prior_copies or m.prior_copies.hits:
        return ""
    tried = m.copy_calibration.false_copies
    if tried is None:
        doubt = "tried on no other photos"
    elif tried.hits:
        doubt = f"which other photos of {counted(tried)} reach, too"
    else:
        doubt = f"which no other photo of {tried.n} people reaches, too few to prove it by"
    return (
        f"photos come back as what passes for copies, of {counted(m.copies)} "
        f"(PSNR at least {m.copy_calibration.psnr:.1f} dB, {doubt}). "
    )


def _name_defense(row: Row) -> str:
    """The defense with its parameters, as the beginning of a sentence."""
    return f"Your deployed defense, {defense_in_words(row)}"


def _without(row: Row, rows: Sequence[Row]) -> str:
    """What the same attack finds in the same scenario without a defense."""
    for other in rows:
        same = (other.scenario, other.attack) == (row.scenario, row.attack)
        if same and other.undefended and other is not row and other.reid:
            return f" The same attack re-identified {counted(other.reid)} without it."
    return ""


def _comparison(lines: Sequence[Row]) -> Verdict:
    """What was compared; no defense is named as deployed, so that none is judged."""
    scenes = Counter(row.scenario for row in lines)
    scenario = max(scenes, key=lambda name: scenes[name])
    best = _strongest_by_defense(lines, scenario)
    control = [row for row in best if row.role == "control"]
    rivals = [row for row in best if row.role != "control"]
    sentence = (
        "This study compares defenses and names none as deployed, so nothing is judged. "
        f"Under the strongest attack on each, {scenario}"
    )
    parts = [f"{_in_short(row)} (the control)" for row in control]
    if len(rivals) <= SHOWN:
        parts += [_in_short(row) for row in rivals]
    else:
        parts += [f"from {_alike(rivals, rivals[0])} to {_alike(rivals, rivals[-1])}"]
    others = [name for name in scenes if name != scenario]
    beside = f" Further scenarios stand in the table: {first_few(others)}." if others else ""
    return Verdict("COMPARISON", f"{sentence}: {'; '.join(parts)}.{beside}")


def _alike(rows: Sequence[Row], row: Row) -> str:
    """A defense and its rate, and how many others have the same, so that none looks singled out."""
    assert row.reid
    more = sum(1 for other in rows if other.reid and other.reid.value == row.reid.value) - 1
    return _in_short(row) + (f" (as under {more} more)" if more else "")


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
    return f"{defense_name(row.defense)} {counted(row.reid)}"


def _without_people(rows: Sequence[Row], lines: Sequence[Row]) -> Headline:
    """The headline where no deployed row could be judged by re-identification."""
    candidates = [
        (row.measurement.explained.update.value, row)
        for row in lines
        if row.measurement and row.measurement.explained
    ]
    if candidates:  # of a recorded run, whose rows say what can be said without people
        best = max(candidates, key=lambda entry: entry[0])[1]
        sentence = f"{attack_name(best.attack)}: {best.verdict.sentence}"
        return replace(NOT_TESTED, sentence=sentence), rows.index(best)
    if lines and not any(row.measurement and row.measurement.ssim for row in lines):
        sentence = "Nothing was tested: no attack of this study reads what was sent."
        return replace(NOT_TESTED, sentence=sentence), None
    return NOT_TESTED, None


def _where(row: Row) -> str:
    setting = f"network {row.network}, batch {row.batch_size}, {defense_name(row.defense)}"
    return f"{model_in_words(row)} ({setting}; {attack_name(row.attack)})"
