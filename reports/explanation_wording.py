"""Sentences about an explanation: what was measured, in words, and what it does not say."""

from fedaudit.core.measures import Estimate
from fedaudit.reports.explanation import Explanation, Game, Layers, Regions, Round
from fedaudit.reports.text import CLOSING, estimate_range, number, percent

UNEVEN = 1.25
"""Heat in a region, as a multiple of an even spread, from which on it is said to be dense."""
LIMITATIONS = (
    "It explains what the attacks named above made of what they were shown. A better attack may "
    "find a layer, a round or a client to leak more; none of these figures is an upper bound.",
    "Few targets were attacked: read the intervals, not the points. Intervals over targets are "
    "Student’s t, which takes targets for independent and roughly normal.",
    "The labels are known to the attacker in the figure by layer.",
    "Grad-CAM explains one embedder, not the audited network and not every face matcher; its map "
    "has few places a side. Regions are boxes of an aligned face.",
    "Shapley values share out a total. They do not say what would happen if one thing were "
    "withheld alone; the figure by layer does.",
    CLOSING,
)

DEFINITIONS = (
    (
        "Leakage",
        "SSIM between original and reconstruction (Gaussian window, σ = 1.5, images in 0–1), mean "
        "over a target’s images; identity by an embedder that is independent of the audited "
        "network, against other photos of the person.",
    ),
    (
        "Prior only",
        "The same attack with noise of the same norm in place of everything that it is shown: what "
        "it owes to its prior and optimizer.",
    ),
    (
        "Best attack",
        "Of several attacks, the one whose own objective falls furthest below what the same attack "
        "reaches on noise. The truth plays no part.",
    ),
    (
        "Shapley value of a shared thing",
        "Players are what was shared (the update in groups of layers) and the knowledge of the "
        "labels. A coalition is what the attacker is shown; its value is the leakage of the best "
        "attack on exactly that. Nothing, or labels alone, is worth the prior. Exact: every "
        "coalition is attacked.",
    ),
    (
        "Shapley value of a client",
        "A coalition is a set of clients whose updates are added up (secure aggregation). Its "
        "value is SSIM above the prior-only control, summed over the images of its members. Random "
        "orders of joining in antithetic pairs, each pair on other photos; Student’s 95 % "
        "intervals over pairs.",
    ),
    (
        "Grad-CAM",
        "Selvaraju et al. (ICCV 2017), of the identity cosine to the person’s gallery template, "
        "at the embedder’s deepest map with at least 7 × 7 places. Heat is ≥ 0; shares are of its "
        "sum.",
    ),
    (
        "Painted over",
        "Identity cosine that a reconstruction loses when the region gets the picture’s mean "
        "color: a check on Grad-CAM by intervention.",
    ),
)


def findings(why: Explanation) -> tuple[str, ...]:
    """One sentence a part that was tested."""
    parts = (
        why.layers and _layers(why.layers),
        why.rounds and _rounds(why.rounds),
        why.regions and _regions(why.regions),
        why.artifacts and _artifacts(why.artifacts),
        why.clients and _clients(why.clients),
    )
    return tuple(part for part in parts if part)


def _layers(layers: Layers) -> str:
    tested = [layer for layer in layers.layers if layer.alone]
    if not tested:
        return ""
    best = max(tested, key=lambda layer: layer.alone.excess.value if layer.alone else -1.0)
    assert best.alone is not None
    text = (
        f"By itself, {best.name} leaks most: SSIM {_mean(best.alone.ssim)} alone, prior only "
        f"{number(best.alone.prior.value)}, whole update {number(layers.all.ssim.value)}."
    )
    missed = [layer for layer in layers.layers if layer.lost]
    if missed:
        needed = max(missed, key=lambda layer: layer.lost.value if layer.lost else -1.0)
        assert needed.lost is not None
        text += (
            f" Least replaceable is {needed.name}: without it SSIM falls by {_mean(needed.lost)}."
            if needed.lost.low > 0
            else " No single layer is missed when it is left out: the others give the same, within "
            "the intervals."
        )
    return text


def _rounds(rows: tuple[Round, ...]) -> str:
    most = max(rows, key=lambda row: row.leakage.ssim.value)
    least = min(rows, key=lambda row: row.leakage.ssim.value)

    def named(row: Round) -> str:
        worth = "" if row.accuracy is None else f", accuracy {percent(row.accuracy)}"
        return f"round {row.round} (SSIM {_mean(row.leakage.ssim)}{worth})"

    still = [row for row in rows if row.leakage.excess.low > 0]
    return (
        f"Leakage is highest in {named(most)} and lowest in {named(least)}; in {len(still)} of "
        f"{len(rows)} rounds it is above the prior by more than its interval."
    )


def _regions(regions: Regions) -> str:
    best = max(regions.regions, key=lambda r: r.recovered.value)
    worst = min(regions.regions, key=lambda r: r.recovered.value)
    text = (
        f"Best recovered: {best.name} (local SSIM {number(best.recovered.value)}); least: "
        f"{worst.name} ({number(worst.recovered.value)})."
    )
    dropping = [r for r in regions.regions if r.drop]
    if dropping:
        most = max(dropping, key=lambda r: r.drop.value if r.drop else -2.0)
        hot = max(
            (r for r in regions.regions if r.heat),
            key=lambda r: (r.heat.value if r.heat else 0.0) / r.area,
        )
        assert most.drop
        assert hot.heat
        density = hot.heat.value / hot.area
        text += (
            f" The identity match loses most where the region {most.name} is painted over "
            f"({number(most.drop.value)} of cosine); its heat is "
        ) + (
            f"densest in the region {hot.name} ({number(density)} times an even spread)."
            if density >= UNEVEN
            else f"spread over the whole picture (at most {number(density)} times an even spread)."
        )
    return text


def _artifacts(game: Game) -> str:
    best = max(game.players, key=lambda p: p.ssim.value)
    return (
        f"Of what is shared or known, {best.name} adds most: {_mean(best.ssim)} of SSIM, of "
        f"{number(game.everybody.value - game.nobody.value)} that everything adds to the prior."
    )


def _clients(game: Game) -> str:
    losing = [p.name for p in game.players if p.hidden and p.hidden.high < 0]
    hidden = [p.name for p in game.players if p.hidden and p.hidden.low > 0]
    best = max(game.players, key=lambda p: p.ssim.value)
    verdict = (
        f"lose by being together: {', '.join(losing)}" if losing else "no client is shown to lose"
    )
    return (
        f"In sums of clients, {best.name} adds most ({_mean(best.ssim)}); {verdict}; the sum hides "
        f"{', '.join(hidden) if hidden else 'none of them beyond its interval'}."
    )


def _mean(value: Estimate) -> str:
    return f"{number(value.value)} {estimate_range(value)}"
