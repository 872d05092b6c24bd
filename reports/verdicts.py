"""What the statistics allow one to say of one row, and how surely."""

from collections.abc import Sequence

from fedaudit.core.measures import Rate
from fedaudit.reports.comparison import GRAVITY, Reason, Row, Severity, Verdict
from fedaudit.reports.identity_tests import ALPHA
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Settings
from fedaudit.reports.text import NBSP, counted, p_value, percent, signed
from fedaudit.stats.intervals import clopper_pearson, targets_needed

LEVELS: tuple[tuple[float, Severity], ...] = ((0.5, "critical"), (0.1, "high"), (0.01, "medium"))
ORDER: tuple[Severity, ...] = ("none", "low", "medium", "high", "critical")
NOT_TESTED = Verdict(
    "NOT TESTED",
    "Re-identification was not tested: no attack finished, nobody has a gallery photo, or these "
    "people are too few to calibrate a false match rate.",
)


def severity_of(reid: Rate, *, passive: bool) -> Severity:
    """Severity by the lower bound of the rate, one level up for a passive attacker."""
    level: Severity = "low" if reid.low > 0 else "none"
    level = next((name for bound, name in LEVELS if reid.low >= bound), level)
    if passive and level != "none":
        level = ORDER[min(ORDER.index(level) + 1, len(ORDER) - 1)]
    return level


def is_demonstrated(measurement: Measurement) -> bool:
    """Whether a leak of identity is demonstrated, and by the update rather than a prior.

    Two claims, and each has its test (`fedaudit.reports.identity_tests`). That it says who it was:
    the exact test on identity. That the update said it: in a fresh round nothing else can, as lots
    dealt the places. Where its control, which saw another's update, says it as well, and where a
    trained model, a real deal or an attack from elsewhere may know who stands where, the attack
    must exceed its own control, place by place. Both p-values must hold; the larger is corrected
    for everything that the study tests. Where there is no such test, the excess over prior-only
    decides. A copy of the very photo shows it by itself.
    """
    test = measurement.identity
    if measurement.copied:
        return True
    if test is None or test.adjusted is None:
        return measurement.excess is not None and measurement.excess.low > 0
    return test.adjusted <= ALPHA


def judge(
    measurement: Measurement | None,
    settings: Settings,
    *,
    passive: bool,
    valid: bool,
    most: int | None = None,
) -> Verdict:
    """The verdict on one line of the comparison.

    Where nobody knows whom the updates are of (`Measurement.searched`), a match is with *somebody*
    in the gallery: a leak is then demonstrated only above what photos of strangers reach, too.

    Args:
        measurement: R, the re-identification rate, and E = R − prior-only, paired.
        settings: T and the FMR.
        passive: The attacker sends nothing of its own.
        valid: The controls of the study held.
        most: Independent units that the data can give at most; None where that is not known.
    """
    if measurement is None or measurement.reid is None:
        return NOT_TESTED
    reid, excess = measurement.reid, measurement.excess
    if not valid:
        return Verdict("INVALID", f"A control failed, so {rate_text(reid)} means nothing yet.")
    if measurement.searched:
        return _of_search(measurement, settings, passive=passive)
    lead = found_text(reid) + originals_text(measurement)
    if excess is None:
        why = "either it was not asked for (controls = true), or its cells have no result"
        sentence = f"{lead}; the prior-only control is missing: {why}."
        return Verdict("INCONCLUSIVE", sentence, reason="no prior-only control")
    above = f"{lead}, {excess_text(measurement)}{_test_text(measurement)}"
    if is_demonstrated(measurement):
        return _leaking(measurement, above, passive=passive)
    return _below(measurement, above, settings.reid_limit, most)


def _leaking(measurement: Measurement, above: str, *, passive: bool) -> Verdict:
    """How much was shown to come through: people who are recognized, or less."""
    assert measurement.reid
    if measurement.reid.hits or measurement.copied:
        level = severity_of(measurement.reid, passive=passive)
        return Verdict("LEAK DEMONSTRATED", f"{above}.", "low" if level == "none" else level)
    trace = f"What comes back says something of who it was, too little to say how much: {above}"
    return Verdict("TRACE OF IDENTITY", f"{trace}.", "low")


def _told_otherwise(measurement: Measurement) -> str:
    """Why a name that came back may not come from the update; "" where nothing else could.

    It is no leak of the update, and no reason for a clean word.
    """
    test, control = measurement.identity, measurement.prior_identity
    if test is None or not test.guarded or test.p_value > ALPHA:
        return ""
    source = f"the control may say as much: {test.beside}"
    if control is not None and control.p_value <= ALPHA:
        source = f"so does its control, which saw another's update (p = {p_value(control.p_value)})"
    over = "—" if test.over_control is None else p_value(test.over_control)
    return (
        f"What came back says who it was (p = {p_value(test.p_value)}), and {source}. That the "
        f"update says more than the control is not shown (p = {over}): audit more people, with a "
        "prior that does not know them"
    ).replace("p = <", "p <")


def _test_text(measurement: Measurement) -> str:
    """The test on identity, where there is one."""
    test = measurement.identity
    if test is None or test.adjusted is None:
        return ""
    few = ", and in this study so few people cannot show a leak" if test.smallest > ALPHA else ""
    return f"; test on identity p = {p_value(test.adjusted)}{few}".replace("p = <", "p <")


def _below(m: Measurement, above: str, limit: float, most: int | None) -> Verdict:
    """No leak shown: the limit is excluded, or the units are too few for that."""
    if why := _told_otherwise(m):
        return Verdict("INCONCLUSIVE", f"{above}. {why}.", reason="source not shown")
    assert m.reid
    reid, units = m.reid, targets_needed(limit)
    goal = percent(limit).replace(NBSP, " ")
    if most is not None and reid.n > most:
        # The interval of more units than the data can give counts dependent ones: too narrow.
        more = f"the {reid.n} share photos, and this data gives {most} independent at most"
        return Verdict("INCONCLUSIVE", f"{above}; {more}.", reason="data too small")
    if reid.high <= limit:
        sentence = f"{found_text(reid)}{originals_text(m)}; no leak found above {goal}."
        return Verdict("NO LEAK FOUND ABOVE LIMIT", sentence)
    if most is not None and units > most:
        least = percent(clopper_pearson(0, most)[1]).replace(NBSP, " ")
        more = (
            f"excluding a leak of {goal} takes {units}, and this data gives {most} at most, which "
            f"settle no limit below {least}: use a data set of more people, or raise reid_limit"
        )
        return Verdict("INCONCLUSIVE", f"{above}; {more}.", reason="data too small")
    more = f"too few {reid.unit} to exclude a leak of {goal}; {units} {reid.unit} without one "
    return Verdict(
        "INCONCLUSIVE",
        f"{above}: {more}would settle it.",
        targets_needed=units,
        reason="too few units",
    )


def _of_search(m: Measurement, settings: Settings, *, passive: bool) -> Verdict:
    """Verdict on a recorded run of unknown people: matches with somebody in the gallery."""
    assert m.reid
    beyond = m.chance is not None and m.reid.low > m.chance.high
    lead = f"Faces from updates of {rate_text(m.reid)} match somebody in the gallery"
    luck = f"; {rate_text(m.chance)} match a stranger" if m.chance else ""
    unsure = ". Whether they are the right people is not known"
    if m.excess is None:
        sentence = f"{lead}{luck}; the prior-only control is missing{unsure}."
        return Verdict("INCONCLUSIVE", sentence, reason="no prior-only control")
    lead += f", {excess_text(m)}{luck}{unsure}"
    if m.excess.low > 0 and beyond:
        more = ", but it is more than the generator and chance explain"
        return Verdict("LEAK DEMONSTRATED", f"{lead}{more}.", severity_of(m.reid, passive=passive))
    if m.reid.high <= settings.reid_limit and m.excess.low <= 0:
        return Verdict("NO LEAK FOUND ABOVE LIMIT", f"{lead}.")
    units = targets_needed(settings.reid_limit)
    return Verdict("INCONCLUSIVE", f"{lead}.", targets_needed=units, reason="too few units")


WEAK: frozenset[Reason] = frozenset({"blind attack", "no power", "unconverged"})
"""Reasons by which an attack says nothing, so that it takes nothing from one that does."""


def standing_row(rows: Sequence[Row]) -> Row:
    """The row whose verdict stands for one defense in one scenario: the gravest.

    An attack that was too weak to find anybody does not count against one that was strong enough.
    `rows` are tested, and at least one.
    """
    clean = any(row.verdict.kind == "NO LEAK FOUND ABOVE LIMIT" for row in rows)
    telling = [
        row
        for row in rows
        if not (clean and row.verdict.reason in WEAK and row.reid and not row.reid.hits)
    ]
    gravest = min(GRAVITY.index(row.verdict.kind) for row in telling)
    alike = [row for row in telling if GRAVITY.index(row.verdict.kind) == gravest]
    return max(alike, key=lambda row: row.strength)


def found_text(rate: Rate) -> str:
    """Who came back, as the beginning of a sentence.

    >>> found_text(Rate(2, 2, 1.0, 0.158, 1.0, "updates"))
    'Somebody re-identified in 2 of 2 updates (95 % interval 16 % to 100 %)'
    """
    if rate.unit == "people":
        return f"{rate_text(rate)} re-identified"
    return f"Somebody re-identified in {rate_text(rate)}"


def originals_text(measurement: Measurement) -> str:
    """What the judge finds of the originals themselves, beside a rate; "" where it is not known."""
    most = measurement.originals
    if most is None:
        return ""
    return f", where of the original photos {most.hits} of {most.n} are recognized"


def excess_text(measurement: Measurement) -> str:
    """How much more that is than without the update."""
    excess = measurement.excess
    assert excess
    low, high = points(excess.low), points(excess.high)
    return f"{points(excess.value)} above the prior-only control ({low} to {high})"


def rate_text(rate: Rate) -> str:
    """A rate as text, always with its interval and n.

    >>> rate_text(Rate(8, 8, 1.0, 0.631, 1.0))
    '8 of 8 people (95 % interval 63 % to 100 %)'
    """
    low, high = percent(rate.low), percent(rate.high)
    return f"{counted(rate)} (95 % interval {low} to {high})".replace(NBSP, " ")


def points(share: float) -> str:
    """A difference of rates, in percentage points.

    >>> points(0.125)
    '+13 points'
    """
    return f"{signed(100 * share, 0)} points"


def defense_in_words(row: Row) -> str:
    """The defense of a row with the parameters that its claims state."""
    settings = (
        f"{name.replace('_', ' ')} = {value:g}"
        for claim in row.claims
        for name, value in claim.settings.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    stated = ", ".join(dict.fromkeys(settings))
    return defense_name(row.defense) + (f" ({stated})" if stated else "")


def model_in_words(row: Row) -> str:
    """The state of the audited model, for a sentence."""
    state = "a fresh model" if row.round == 1 else f"a trained model (round {row.round})"
    return row.model_state or state
