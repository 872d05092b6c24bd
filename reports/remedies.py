"""The remedy of a leak: the defense that was measured to help most, with its price."""

from fedaudit.reports.comparison import Row, leak_order
from fedaudit.reports.text import percent
from fedaudit.reports.verdicts import defense_in_words, rate_text

NO_REMEDY = (
    "No defense that was measured here lowers the rate and leaves a network that is worth more "
    "than an untrained one; try others, or other settings."
)
RECORDED_REMEDY = (
    "A recording holds no defense to compare with. `fedaudit run` measures defenses, larger "
    "batches and other networks on a simulated federation, with what each costs in accuracy."
)


def remedy_of(row: Row, rows: tuple[Row, ...]) -> str:
    """The defense that was measured to help most in the same scenario, with its price.

    In a comparison, where nothing is deployed that another defense would replace, it is the best of
    all that was compared, whichever row is asked about.
    """
    compares = not any(other.role == "deployed" for other in rows)
    here = [other for other in rows if other.scenario == row.scenario and other.reid]
    rivals: dict[str, list[Row]] = {}
    for other in here:
        if not other.undefended and (compares or other.defense != row.defense):
            rivals.setdefault(other.defense, []).append(other)
    # A defense is as good as it is against the attack that does best against it.
    worst = [max(mine, key=leak_order) for mine in rivals.values()]
    bar = max((x.reid.value for x in (here if compares else [row]) if x.reid), default=0.0)
    helping = [
        w for w in worst if w.reid and w.reid.value < bar and (w.utility is None or w.utility.helps)
    ]
    if not helping and row.model_state:
        return RECORDED_REMEDY
    if not rivals:
        return f"No other defense was run in scenario {row.scenario}: add some to it."
    if not helping:
        return NO_REMEDY
    best = min(helping, key=leak_order)
    assert best.reid is not None
    price = " Its cost in accuracy was not measured."
    if best.utility and compares:
        price = (
            f" Verification accuracy with it: {percent(best.utility.accuracy.value)} (untrained: "
            f"{percent(best.utility.untrained.value)})."
        )
    elif best.utility and row.utility:
        price = (
            f" Verification accuracy went from {percent(row.utility.accuracy.value)} to "
            f"{percent(best.utility.accuracy.value)} (untrained: "
            f"{percent(best.utility.untrained.value)})."
        )
    name = defense_in_words(best)
    # Without saying so, the best of those that left accuracy would look like the best of all.
    if any(w not in helping and w.reid and w.reid.value < best.reid.value for w in worst):
        name += ", of those whose network was shown to learn"
    lead = {
        "NO LEAK FOUND ABOVE LIMIT": f"Use {name}",
        "LEAK DEMONSTRATED": f"No defense measured here suffices; least came back under {name}",
    }.get(best.verdict.kind, f"Try {name}, and audit it with more people; measured here")
    measured = f"{rate_text(best.reid)} re-identified (its verdict: {best.verdict.kind.lower()})"
    return f"{lead}: {measured}.{price}"
