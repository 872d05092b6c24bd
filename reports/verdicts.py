"""What the statistics allow one to say, and how surely."""

from fedaudit.core.measures import Rate
from fedaudit.reports.comparison import Measurement, Row, Severity, Verdict
from fedaudit.reports.results import Settings
from fedaudit.stats.intervals import targets_needed

LEVELS: tuple[tuple[float, Severity], ...] = ((0.5, "critical"), (0.1, "high"), (0.01, "medium"))
ORDER: tuple[Severity, ...] = ("none", "low", "medium", "high", "critical")
NOT_TESTED = Verdict(
    "NOT TESTED",
    "Re-identification was not tested: no attack finished, or nobody has a gallery photo.",
)


def severity_of(reid: Rate, *, passive: bool) -> Severity:
    """By the lower bound of the rate; one level up for an attacker who only watches."""
    level: Severity = "low" if reid.low > 0 else "none"
    level = next((name for bound, name in LEVELS if reid.low >= bound), level)
    if passive and level != "none":
        level = ORDER[min(ORDER.index(level) + 1, len(ORDER) - 1)]
    return level


def judge(
    measurement: Measurement | None, settings: Settings, *, passive: bool, valid: bool
) -> Verdict:
    """The verdict on one line of the comparison.

    Where nobody knows whom the updates are of (`Measurement.searched`), a match is with *somebody*
    in the gallery: a leak is then demonstrated only above what photos of strangers reach, too.

    Args:
        measurement: R, the re-identification rate, and E = R − prior-only, paired.
        settings: T and the FMR.
        passive: The attacker sends nothing of its own.
        valid: The controls of the study held.
    """
    if measurement is None or measurement.reid is None:
        return NOT_TESTED
    reid, excess, searched = measurement.reid, measurement.excess, measurement.searched
    number, limit = rate_text(reid), f"{settings.reid_limit:.0%}"
    if not valid:
        return Verdict("INVALID", f"A control failed, so {number} means nothing yet.")
    beyond, luck, unsure = True, "", ""
    matches = f"{number} re-identified"
    if searched:
        chance = measurement.chance
        beyond = chance is not None and reid.low > chance.high
        matches = f"{number.replace('faces', 'reconstructions', 1)} match somebody in the gallery"
        if chance:
            luck = f"; {rate_text(chance).replace('faces', 'photos', 1)} match a stranger"
        unsure = ". Whether they are the right people is not known"
    if excess is None:
        missing = "the prior-only control is missing"
        return Verdict("INCONCLUSIVE", f"{matches}{luck}; {missing}{unsure}.")
    low, high = points(excess.low), points(excess.high)
    known = f"{matches}, {points(excess.value)} above prior-only ({low} to {high}){luck}{unsure}"
    if excess.low > 0 and beyond:
        more = ", but it is more than the generator and chance explain" if searched else ""
        return Verdict("LEAK DEMONSTRATED", f"{known}{more}.", severity_of(reid, passive=passive))
    if reid.high <= settings.reid_limit and excess.low <= 0:
        clean = known if searched else f"{matches}; no leak found above {limit}"
        return Verdict("NO LEAK FOUND ABOVE LIMIT", f"{clean}.")
    needed = targets_needed(settings.reid_limit)
    if not searched:
        known += f": too few targets to exclude a leak of {limit}; {needed} targets without one "
        known += "would settle it"
    return Verdict("INCONCLUSIVE", f"{known}.", targets_needed=needed)


def rate_text(rate: Rate) -> str:
    """A rate as text, always with its interval and n.

    >>> rate_text(Rate(8, 8, 1.0, 0.631, 1.0))
    '8 of 8 faces (95 % interval 63 % to 100 %)'
    """
    return (
        f"{rate.hits} of {rate.n} faces (95 % interval {rate.low:.0%} to {rate.high:.0%})".replace(
            "%", " %"
        ).replace("95  %", "95 %")
    )


def points(share: float) -> str:
    """A difference of rates, in percentage points."""
    return f"{100 * share:+.0f} points"


def model_in_words(row: Row) -> str:
    """The state of the audited model, for a sentence."""
    state = "a fresh model" if row.round == 1 else f"a trained model (round {row.round})"
    return row.model_state or state
