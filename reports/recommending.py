"""Which defenses were *measured* to be good enough, the cheapest first; or what is nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedaudit.reports.comparison import DefenseLine
from fedaudit.reports.guarantees import guarantee
from fedaudit.reports.results import Results
from fedaudit.reports.text import TRAINS_SO, accuracy, percent
from fedaudit.stats.intervals import targets_needed
from fedaudit.study.reach import place_of

Standing = Literal[
    "measured", "by estimate only", "too leaky", "too costly", "no gain", "not measured"
]


@dataclass(frozen=True)
class Candidate:
    """One defense in one scenario, held against what is asked.

    Attributes:
        standing: "measured": the upper end of re-identification's interval and the lower end of
            the accuracy's keep the limits. "by estimate only": the estimates do, an interval does
            not. "too leaky", "too costly": re-identification or accuracy breaks its limit (leakage
            is said first). "no gain": training under the defense is not shown to beat the
            untrained network, whatever else. "not measured": something is missing, such as
            the accuracy of a defense under which the federation trained as undefended, or no attack
            that knows the defense was run.
        why: In words, with the numbers.
        cost: Client seconds against the undefended, times; None where not measured.
    """

    line: DefenseLine
    standing: Standing
    why: str
    cost: float | None


@dataclass(frozen=True)
class Recommendation:
    """For one scenario: candidates in the order in which to consider them."""

    scenario: str
    candidates: tuple[Candidate, ...]

    @property
    def satisfied(self) -> tuple[Candidate, ...]:
        """Those that were measured to keep both limits, the cheapest first."""
        return tuple(c for c in self.candidates if c.standing == "measured")

    @property
    def unranked(self) -> tuple[Candidate, ...]:
        """Those under which the federation trained as undefended, so that nothing ranks them."""
        return tuple(c for c in self.candidates if c.line.same_training)


def recommend(
    results: Results, *, max_reid: float, min_accuracy: float
) -> tuple[Recommendation, ...]:
    """Compare every defense of every scenario with the limits on leakage and accuracy.

    Args:
        results: Of a run.
        max_reid: Largest re-identification rate; its interval's upper end must not be above it.
        min_accuracy: Least verification accuracy on held-out people, in [0.5, 1].
    """
    names = dict.fromkeys(line.scenario for line in results.defenses)
    return tuple(
        Recommendation(
            name,
            _order(
                [
                    _judge(x, max_reid, min_accuracy, _most(results, x))
                    for x in results.defenses
                    if x.scenario == name
                ],
                max_reid,
                min_accuracy,
            ),
        )
        for name in names
    )


def _most(results: Results, line: DefenseLine) -> int | None:
    """Independent units that the data can give; None where that is not known."""
    place = place_of(line.scenario, line.defense)
    return results.units.get(place, results.units.get(line.scenario))


def _judge(line: DefenseLine, max_reid: float, min_accuracy: float, most: int | None) -> Candidate:
    utility, reid = line.utility, line.reid
    cost = utility.overhead if utility else None
    if utility is None or reid is None or line.verdict == "INVALID":
        return Candidate(line, "not measured", _missing(line), cost)
    why = (
        f"{reid.hits} of {reid.n} re-identified (upper bound {reid.high:.1%}) by {line.attack}; "
        f"accuracy {accuracy(utility.accuracy)}, untrained {percent(utility.untrained.value)}; "
        f"privacy claim: {guarantee(line)}"
    )
    if not line.met_by_adaptive:
        why = f"no attack that knows the defense was run; {why}"
    standing: Standing = "measured"
    # The interval of more units than the data can give counts dependent ones, and is too narrow.
    dependent = most is not None and reid.n > most
    if not utility.helps:
        standing = "no gain"
        why = f"training under it is not shown to beat the untrained network; {why}"
    elif reid.value > max_reid:
        standing = "too leaky"
    elif utility.accuracy.value < min_accuracy:
        standing = "too costly"
    elif not line.met_by_adaptive:
        standing = "not measured"
    elif reid.high > max_reid or dependent or utility.accuracy.low < min_accuracy:
        standing = "by estimate only"
        if dependent:
            why += f"; the {reid.n} share photos, and this data gives {most} independent at most"
        elif 0 < max_reid < reid.high:
            why += f"; {_more(targets_needed(max_reid), reid.unit, most)}"
    return Candidate(line, standing, why, cost)


def _more(count: int, unit: str, most: int | None) -> str:
    """How many units would settle it, or that this data has too few."""
    if most is None or count <= most:
        return f"{count} {unit} without a hit would show the limit kept"
    return (
        f"it would take {count} {unit} without a hit, and this data gives {most} at most: use a "
        "data set of more people, or a higher limit"
    )


def _missing(line: DefenseLine) -> str:
    if line.verdict == "INVALID":
        return "a control of the audit failed"
    if line.reid is None:
        return "re-identification was not tested"
    if line.same_training:
        return (
            f"accuracy and cost were {TRAINS_SO}, and only the audited update changes; what is "
            "not known counts against it"
        )
    return "its federation's accuracy was not measured"


def _order(
    candidates: Sequence[Candidate], max_reid: float, min_accuracy: float
) -> tuple[Candidate, ...]:
    """Order: standing, then cost and bytes; the unsatisfying by their distance from the limits."""
    order = ("measured", "by estimate only", "too costly", "too leaky", "no gain", "not measured")

    def key(candidate: Candidate) -> tuple[int, float, float]:
        place = order.index(candidate.standing)
        line = candidate.line
        cost = candidate.cost if candidate.cost is not None else float("inf")
        if place <= 1:
            size = line.utility.bytes_sent if line.utility else None
            return place, cost, float(size) if size is not None else float("inf")
        leak = max(0.0, line.reid.value - max_reid) if line.reid else 1.0
        loss = max(0.0, min_accuracy - line.utility.accuracy.value) if line.utility else 1.0
        return max(place, 3), leak + loss, cost  # too costly and too leaky side by side

    return tuple(sorted(candidates, key=key))
