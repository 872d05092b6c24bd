"""Sentences about an explanation: what was measured, in words."""

from fedaudit.core.measures import Estimate
from fedaudit.reports.explanation import Explanation, Game, Layers, Regions, Round
from fedaudit.reports.text import estimate_range, number, percent, rounded

UNEVEN = 1.25
"""Heat in a region, as a multiple of an even spread, from which on it is said to be dense."""


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
    candidates = [layer for layer in layers.layers if layer.alone]
    if not candidates:
        return ""
    best = max(candidates, key=lambda layer: layer.alone.excess.value if layer.alone else -1.0)
    assert best.alone is not None
    text = (
        f"By itself, {best.name} leaks most: SSIM {_mean(best.alone.ssim)} alone, prior only "
        f"{number(best.alone.prior.value)}, whole update {number(layers.all.ssim.value)}."
    )
    losses = [layer for layer in layers.layers if layer.lost]
    if losses:
        largest = max(losses, key=lambda layer: layer.lost.value if layer.lost else -1.0)
        assert largest.lost is not None
        text += (
            f" Least replaceable is {largest.name}: without it SSIM falls by {_mean(largest.lost)}."
            if largest.lost.low > 0
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
            f"densest in the region {hot.name} ({rounded(density)} times an even spread)."
            if density >= UNEVEN
            else f"spread over the whole picture (at most {rounded(density)} times an even spread)."
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
    gaining = [p.name for p in game.players if p.hidden and p.hidden.low > 0]
    best = max(game.players, key=lambda p: p.ssim.value)
    verdict = (
        f"lose by being together: {', '.join(losing)}" if losing else "no client is shown to lose"
    )
    return (
        f"In sums of clients, {best.name} adds most ({_mean(best.ssim)}); {verdict}; the sum hides "
        f"{', '.join(gaining) if gaining else 'none of them beyond its interval'}."
    )


def _mean(value: Estimate) -> str:
    return f"{number(value.value)} {estimate_range(value)}"
