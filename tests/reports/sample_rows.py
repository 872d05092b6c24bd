"""Rows and lines of the sample: three scenarios, five defenses, two attacks."""

import sys
from dataclasses import replace
from pathlib import Path

from scipy.special import betaincinv

from fedaudit.core.measures import Estimate, IdentityTest, Rate, Utility
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports.comparison import DefenseLine, Row, Verdict
from fedaudit.reports.measurement import Measurement, Worst
from fedaudit.stats.crossed import crossed_mean

sys.path.insert(0, str(Path(__file__).parent))
from made_up import claim

THRESHOLD = 0.42
ATTACKS = ("inverting_gradients", "gan_inversion")
SCENARIOS = (
    ("fresh-b1", "face", 1, 1),
    ("trained-b1", "face", 30, 1),
    ("pooled-b4", "face_pooled", 1, 4),
)
# Hits of 16 by defense and attack, in the fresh scenario; verification accuracy; seconds.
DEFENSES = {
    "none": ((9, 12), 0.86, 212.0),
    "dpsgd ε=8": ((0, 1), 0.71, 388.0),
    "dplc": ((5, 8), 0.84, 231.0),
    "private_projector": ((3, 4), 0.85, 219.0),
    "pruning 90 %": ((6, 9), 0.79, 214.0),
}


def clopper_pearson(hits: int, n: int) -> Rate:
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, 0.025))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 0.975))
    return Rate(hits, n, hits / n, low, high)


def around(value: float, half: float, n: int, method: str = "bootstrap by person") -> Estimate:
    return Estimate(value, value - half, value + half, n, method)


def verdict(reid: Rate, prior: Rate, excess: Estimate) -> Verdict:
    numbers = (
        f"{reid.hits} of {reid.n} reconstructed faces were re-identified ({reid.value * 100:.0f} %,"
        f" 95 % CI {reid.low * 100:.0f}–{reid.high * 100:.0f} %); without the update,"
        f" {prior.hits} of {prior.n}."
    )
    if excess.low > 0:
        severity = "critical" if reid.low >= 0.5 else "high" if reid.low >= 0.1 else "medium"
        return Verdict("LEAK DEMONSTRATED", numbers, severity)  # type: ignore[arg-type]
    if reid.high <= 0.05:
        return Verdict("NO LEAK FOUND ABOVE LIMIT", numbers)
    return Verdict("INCONCLUSIVE", numbers, targets_needed=72)


def _identity(p_value: float, adjusted: float | None) -> IdentityTest:
    return IdentityTest(p_value, 6.0, 16, 16, 30, 1 / 20_000, exact=False, adjusted=adjusted)


def row_of(scenario: tuple[str, str, int, int], defense: str, attack: int) -> Row:
    name, network, round_, batch = scenario
    hits, accuracy, seconds = DEFENSES[defense]
    n = 16 * batch
    kept = 1.0 if round_ == 1 and batch == 1 else 0.45 if round_ > 1 else 0.3
    found = round(hits[attack] * kept * batch)
    reid, prior = clopper_pearson(found, n), clopper_pearson(attack * batch, n)
    excess = around(reid.value - prior.value, 0.21 / batch**0.5, n)
    similarity = 0.18 + 0.5 * reid.value + 0.03 * attack
    private = defense.startswith("dp")
    return Row(
        scenario=name,
        network=network,
        method="fedsgd" if round_ == 1 else "fedavg",
        round=round_,
        batch_size=batch,
        defense=defense,
        attack=ATTACKS[attack],
        threat_model="D",
        adaptive="none needed" if defense == "none" else "known" if attack else "no",
        measurement=Measurement(
            n_targets=16,
            n_people=16,
            of="photos",
            attacked=("update",),
            metrics={
                "ssim": around(similarity, 0.07, n, "Student t"),
                "psnr": around(11 + 9 * similarity, 1.3, n, "Student t"),
                "mse": around(0.05 - 0.04 * similarity, 0.008, n, "Student t"),
                "lpips": around(0.72 - 0.5 * similarity, 0.06, n, "Student t"),
            },
            reid=reid,
            prior=prior,
            excess=excess,
            rank1=clopper_pearson(min(n, found + 1), n),
            worst=Worst(
                0.3 + 0.55 * reid.value**0.5,
                f"{name}--{defense}--{ATTACKS[attack]}--audit--t003--s0",
                0,
            ),
            prior_ssim=around(0.14 + 0.05 * attack, 0.05, n, "Student t"),
            labels=1.0 if batch == 1 else 0.81,
            seconds=41.3 + 170 * attack,
            identity=_identity(0.0004, 0.0021) if excess.low > 0 else _identity(0.21, 1.0),
            prior_identity=_identity(0.4, None),
        ),
        claims=(claim(8.0, "counts"),) if private else (),
        utility=worth(accuracy, seconds) if batch == 1 else None,
        verdict=verdict(reid, prior, excess),
        role="deployed" if defense == "none" else "alternative",
    )


def worth(accuracy: float, seconds: float = 30.0, *, untrained: float = 0.7) -> Utility:
    """Of ten people and two trainings, some of whom are easier."""
    ease = [0.01 * (k - 4.5) for k in range(10)]
    runs = tuple(tuple(accuracy + run + e for e in ease) for run in (-0.005, 0.005))
    fresh = tuple(tuple(untrained + 0.5 * e for e in ease) for _ in runs)
    gain = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(runs, fresh, strict=True)]
    return Utility(
        accuracy=crossed_mean(runs),
        untrained=crossed_mean(fresh),
        gain=crossed_mean(gain, low=-1),
        accuracies=runs,
        untrained_accuracies=fresh,
        tar_at_far={"1e-2": accuracy - 0.35},
        auc=accuracy + 0.06,
        pairs=900,
        rounds=30,
        seconds=seconds,
        bytes_per_client_round=1_204_224,
        central=crossed_mean([[0.9 + e for e in ease]]),
    )


def line_of(rows: tuple[Row, ...], scenario: str, defense: str) -> DefenseLine:
    blind, adapted = (r for r in rows if r.scenario == scenario and r.defense == defense)
    bare = next(r for r in rows if r.scenario == scenario and r.attack == adapted.attack)
    utility = adapted.utility and replace(
        adapted.utility,
        step_seconds=0.5,
        plain_step_seconds=0.4,
        bytes_sent=602_112,
        plain_bytes_sent=602_112,
    )
    assert adapted.reid
    assert bare.reid
    return DefenseLine(
        scenario=scenario,
        defense=defense,
        name=defense.partition(" ")[0],
        settings={"strength": 0.9} if " " in defense else {},
        attack=adapted.attack,
        adaptive=adapted.adaptive,
        met_by_adaptive=True,
        verdict=adapted.verdict.kind,
        measurement=adapted.measurement,
        reid_blind=blind.reid,
        reid_adapted=adapted.reid,
        worst_cosine=adapted.worst_cosine,
        reduction=None
        if defense == "none"
        else around(bare.reid.value - adapted.reid.value, 0.2, adapted.reid.n),
        p_value=None if defense == "none" else 0.01,
        p_holm=None if defense == "none" else 0.04,
        utility=utility,
        accuracy_lost=accuracy_difference(bare.utility, utility)
        if utility and bare.utility
        else None,
        claims=adapted.claims,
        dominated_by="dplc" if defense.startswith("pruning") else None,
    )
