"""How often the 95 % intervals of a report hold the truth, for every kind that it prints.

    python benchmarks/interval_coverage.py

Data are drawn where the truth is known: people differ, photos of one person resemble each other,
and scores are as skewed as SSIM of reconstructions is (Beta(2, 5)). The FMR is that of a threshold
calibrated on people of whom some are easily taken for others, and the truth is the population's.
Exact intervals hold more often than 95 %, the more so the fewer people there are. Half a minute.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr

from fedaudit.core.measures import Estimate, Rate
from fedaudit.stats.clustered_rates import rate_by_person, rate_of_pairs
from fedaudit.stats.intervals import clopper_pearson, mean, paired_rate_difference, rate

DRAWS = 2000
Simulation = Callable[[Generator], bool]
"""One data set and its interval: whether the truth lies in it."""


def holds(interval: Rate | Estimate, truth: float) -> bool:
    """Whether the truth lies in it."""
    return interval.low <= truth <= interval.high


def bootstrap_mean(people: int) -> Simulation:
    """The percentile bootstrap that reports had before, for comparison."""

    def draw(random: Generator) -> bool:
        values = random.beta(2, 5, people)
        means = values[random.integers(0, people, (1000, people))].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        return bool(low <= 2 / 7 <= high)

    return draw


def student_mean(people: int, photos: int = 1) -> Simulation:
    """A mean over people with `photos` each, or with one to twice as many."""

    def draw(random: Generator) -> bool:
        sizes = random.integers(photos, 2 * photos, people) if photos > 1 else np.ones(people, int)
        whose = np.repeat(np.arange(people), sizes)
        values = random.beta(2, 5, people)[whose] + random.normal(0, 0.05, len(whose))
        return holds(mean(values.tolist(), whose.tolist()), 2 / 7)

    return draw


def student_difference(people: int) -> Simulation:
    """A paired difference of two skewed scores, of which the pairs share the person."""

    def draw(random: Generator) -> bool:
        person = random.beta(2, 5, people)
        gaps = person * random.beta(5, 2, people) - person * random.beta(2, 5, people)
        return holds(mean(gaps.tolist(), range(people)), 2 / 7 * (5 / 7 - 2 / 7))

    return draw


def exact_rate(people: int, truth: float) -> Simulation:
    """A rate over independent people."""
    return lambda random: holds(rate((random.random(people) < truth).tolist()), truth)


def limit(people: int, truth: float) -> Simulation:
    """The upper end alone, which excludes a leak: one-sided 97.5 %."""

    def draw(random: Generator) -> bool:
        return truth <= clopper_pearson(int(random.binomial(people, truth)), people)[1]

    return draw


def excess(people: int, found: float, prior: float) -> Simulation:
    """A paired difference of rates: attack minus prior-only control, on the same people."""

    def draw(random: Generator) -> bool:
        first, second = (random.random(people) < share for share in (found, prior))
        gap = paired_rate_difference(first.tolist(), second.tolist(), range(people))
        return holds(gap, found - prior)

    return draw


def ceiling(people: int, photos: int = 5) -> Simulation:
    """A rate over photos of people, of whom some are hard to recognize: Beta(8, 0.5) each."""

    def draw(random: Generator) -> bool:
        hits = random.random((people, photos)) < random.beta(8, 0.5, people)[:, None]
        whose = np.repeat(np.arange(people), photos)
        return holds(rate_by_person(hits.ravel().tolist(), whose.tolist()), 8 / 8.5)

    return draw


def false_match_rate(people: int, photos: int = 5, spread: float = 0.5) -> Simulation:
    """The FMR at a threshold that was chosen on the same impostor pairs, as a study's is."""

    def scores(random: Generator, lambs: np.ndarray, wolves: np.ndarray) -> np.ndarray:
        shape = (len(wolves), photos, len(lambs))
        pair = 0.7 * random.standard_normal((len(wolves), 1, len(lambs)))
        return np.asarray(
            spread * (lambs[None, None] + wolves[:, None, None])
            + pair
            + 0.7 * random.standard_normal(shape)
        )

    def draw(random: Generator) -> bool:
        lambs, wolves = random.standard_normal((2, people))
        table = scores(random, lambs, wolves)
        others = ~np.eye(people, dtype=bool)[:, None].repeat(photos, 1)
        threshold = np.sort(table[others])[-int(1e-3 * others.sum()) - 1]
        matches = ((table > threshold) & others).sum(1)
        found = rate_of_pairs(matches, others.sum(1))
        # In the population scores are normal: the sum of all variances decides.
        spread_of_all = (2 * spread**2 + 2 * 0.7**2) ** 0.5
        return holds(found, float(ndtr(-threshold / spread_of_all)))

    return draw


def lines() -> Iterator[tuple[str, Simulation, int]]:
    """What is measured: a name, the simulation, and how often it is drawn."""
    for n in (6, 8, 16, 40):
        yield f"mean, percentile bootstrap (before), {n} people", bootstrap_mean(n), DRAWS
        yield f"mean, Student over people, {n} people", student_mean(n), DRAWS
    yield "mean, Student over people, 8 people of 3 to 5 photos", student_mean(8, 3), DRAWS
    yield "paired difference, Student over people, 8 people", student_difference(8), DRAWS
    for n, truth in ((8, 0.5), (16, 0.05), (72, 0.02)):
        yield f"rate, Clopper–Pearson, {n} people, truth {truth:.0%}", exact_rate(n, truth), DRAWS
    yield "limit (upper end), 72 people, truth 5%", limit(72, 0.05), DRAWS
    for n, found in ((8, 0.5), (16, 0.25), (16, 0.02)):
        name = f"excess over prior-only, {n} people, {found:.0%} against 2%"
        yield name, excess(n, found, 0.02), DRAWS
    for n in (10, 40):
        yield f"ceiling over photos, {n} people × 5", ceiling(n), DRAWS
    for n in (40, 100):
        yield f"FMR 1e-3, {n} people × 5 photos", false_match_rate(n), 300


def main() -> None:
    """Print how often each interval holds the truth."""
    print(f"{'interval':<60} {'holds':>7}  of")
    for name, simulation, draws in lines():
        random = np.random.default_rng(20)
        share = sum(simulation(random) for _ in range(draws)) / draws
        print(f"{name.replace('%', ' %'):<60} {share:>7.1%}  {draws:,}", flush=True)


if __name__ == "__main__":
    main()
