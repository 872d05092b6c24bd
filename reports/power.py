"""Statistical power of a clean row: the attack must have found people without the defense."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedaudit.core.reconstruction import SearchedBy
from fedaudit.reports.comparison import ADAPTED, Reason, Row, Verdict
from fedaudit.reports.measurement import Effort
from fedaudit.reports.text import NBSP, percent
from fedaudit.reports.verdicts import is_demonstrated, rate_text

POWER = 0.5
"""Share of the identity ceiling that an attack must re-identify of what nothing protects, before
its failure elsewhere says anything: a rule, not a tuned number. `benchmarks/attack_power.py` shows
what attacks on either side of it find under weak defenses."""


IN_WORDS: Mapping[SearchedBy, str] = {
    "closed form": "in closed form",
    "spans": "by what layers' inputs span",
    "signs": "by what signs tell of what layers' inputs span",
    "completed spans": "by spans of gradients that follow from numbers that are known",
    "pruned spans": "by what kept entries tell of what layers' inputs span",
    "maps": "by known feature maps and gradients",
    "gradients": "by gradients alone",
}


def with_power(rows: Sequence[Row], ceiling: float | None) -> tuple[Row, ...]:
    """The rows, where NO LEAK FOUND is said only by an attack that was shown to work.

    The control is the same attack with the same steps on the same targets of the same scenario,
    without a defense, where it searched in the same way.

    Args:
        rows: The comparison.
        ceiling: Share of the originals that the judge re-identifies, in [0, 1]; None where it was
            not tried, so that no attack could be.
    """
    control = {(row.scenario, row.attack): row for row in rows if row.undefended}
    return tuple(
        replace(row, verdict=_doubt(row, control.get((row.scenario, row.attack)), ceiling))
        for row in rows
    )


def with_all_cells(rows: Sequence[Row], open_jobs: Sequence[str]) -> tuple[Row, ...]:
    """The rows, where NO LEAK FOUND is said only of lines whose every cell was scored.

    Whoever came back may be among those that failed, were deleted or were altered.

    Args:
        rows: The comparison.
        open_jobs: Keys of the study's jobs that left nothing that can be relied on.
    """
    control = {(row.scenario, row.attack): row.defense for row in rows if row.undefended}
    result = []
    for row in rows:
        mine = {row.defense, control.get((row.scenario, row.attack), row.defense)}
        lines = tuple(f"{row.scenario}--{defense}--{row.attack}--" for defense in mine)
        count = sum(key.startswith(lines) for key in open_jobs)
        if count and row.verdict.kind == "NO LEAK FOUND ABOVE LIMIT":
            why = (
                f"{count} of the cells of {row.attack}, under it or without a defense, failed, "
                "are missing or were altered; give the same command again, which computes them"
            )
            row = replace(row, verdict=inconclusive(row.verdict, "not run", why))  # noqa: PLW2901
        result.append(row)
    return tuple(result)


def _doubt(row: Row, control: Row | None, ceiling: float | None) -> Verdict:
    if row.verdict.kind != "NO LEAK FOUND ABOVE LIMIT" or row.model_state:
        return row.verdict  # a recorded run has a control of its own
    reason, why = lack_of_power(row, control, ceiling)
    return inconclusive(row.verdict, reason, why) if reason else row.verdict


def inconclusive(verdict: Verdict, reason: Reason, why: str) -> Verdict:
    """A clean verdict, taken back for a reason."""
    statement = verdict.sentence.partition("; no leak found above")[0].rstrip(".")
    return Verdict(
        "INCONCLUSIVE", f"{statement}. This is no evidence of a defense: {why}.", reason=reason
    )


def short_of(row: Row) -> tuple[Reason, str]:
    """What the attack itself lacks to conclude: a reason and its words, or ("", "")."""
    if row.adaptive not in ADAPTED:
        return "blind attack", (
            f"{row.attack} takes the defense for absent, and a server "
            "knows which defense its clients use; add an attack that does"
        )
    effort = row.measurement.effort if row.measurement else None
    if effort is None or not effort.enough:
        words = effort.words if effort else "its effort is not known"
        return "unconverged", (
            f"the search of {row.attack} may not have ended ({words}), and a longer one may find "
            "somebody; give it more steps"
        )
    return "", ""


def lack_of_power(row: Row, control: Row | None, ceiling: float | None) -> tuple[Reason, str]:
    """Why finding nobody says nothing of the defense: a reason and its words, or ("", "")."""
    lacking = short_of(row)
    if lacking[0]:
        return lacking
    if control is None or control.measurement is None or control.reid is None:
        return "no undefended control", (
            f"{row.attack} was not tried without a defense in scenario {row.scenario}, so nothing "
            'shows that it works there; add "none" to its defenses'
        )
    alone = f"without a defense {row.attack} re-identifies {rate_text(control.reid)}"
    if not is_demonstrated(control.measurement):
        return "no power", f"{alone}, no more than without the update; give it more steps"
    bound = POWER * (ceiling or 1.0)
    if ceiling is None or control.reid.value < bound:
        bar = percent(bound).replace(NBSP, " ")
        why = f"{alone}, and only {bar} or more show that it works; give it more steps"
        return "no power", why
    mine = row.measurement.effort if row.measurement else None
    if other := other_ways(mine, control.measurement.effort, control.reid.n * bound):
        return "no power", f"{alone}, but {other}"
    return "", ""


def other_ways(effort: Effort | None, control: Effort | None, least: float) -> str:
    """How else than its control an attack searched, so that it was not shown to work; or "".

    An attack begins with the way that an update allows: one that finds everybody by what layers'
    inputs span, where nothing is hidden, may be left with gradients, by which it finds nobody.

    Args:
        effort: Of the attack under a defense.
        control: Of the same attack without one.
        least: How many units the control must have re-identified by each of the attack's ways.
    """
    if effort is None or control is None:
        return ""
    shown = {way for way, rate in control.ways.items() if rate and rate.hits >= least}
    rest = [way for way in effort.ways if way and way not in shown]
    if not rest:
        return ""
    found = [IN_WORDS[way] for way in control.ways if way in shown and way]
    by = f"{' and '.join(found)} there" if found else "there in several ways, by none so many"
    setting = "first_fully_connected" if "gradients" in rest else "spans_first"
    return (
        f"{by}, and here it searched {' and '.join(IN_WORDS[way] for way in rest)}, which is not "
        f"shown to find anybody; add it with what keeps it to that ({setting} = false of "
        "gan_inversion), or an attack that searches both alike (subspace_matching)"
    )
