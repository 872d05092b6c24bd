"""Lower bounds of ε from how often an attack was right over many runs, each with one secret bit.

An (ε, δ) mechanism bounds what any attack can do: TPR ≤ e^ε·FPR + δ, and the same the other way
round (Kairouz, Oh & Viswanath, ICML 2015). Exact intervals of the two rates turn that into a bound
of ε (Jagielski, Ullman & Oprea, NeurIPS 2020, arXiv 2006.07709). The threshold that decides must
not be chosen on the runs that are counted.
"""

import math

from scipy.special import ndtri

from fedaudit.core.errors import UsageError
from fedaudit.stats.gaussian_dp import epsilon_of_mu
from fedaudit.stats.intervals import clopper_pearson


def require_small_delta(delta: float, units: int, unit: str = "unit") -> None:
    """Refuse a δ that allows to publish a whole record, before anything is computed of it.

    Args:
        delta: Of the claim.
        units: How many units (images, clients) the data have; at least 1.
        unit: What one is called.

    Raises:
        UsageError: δ is above 1 / units.
    """
    if delta > 1 / units:
        raise UsageError(
            f"δ = {delta:g} is larger than 1/n = {1 / units:.3g} for n = {units:,} {unit}s: it "
            f"allows to publish one {unit} whole. State a δ well below that, such as "
            f"{10 ** math.floor(math.log10(0.1 / units)):.0e}."
        )


def epsilon_of_runs(
    true_positives: int,
    members: int,
    false_positives: int,
    others: int,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """ε that these counts show at least, whatever the mechanism; 0 where they show nothing.

    Args:
        true_positives: Runs with the canary in which the attack says that it is there.
        members: Runs with the canary.
        false_positives: Runs without it in which the attack says so, too.
        others: Runs without it.
        delta: At which ε is stated, in [0, 1).
        confidence: Of the bound; each of the two rates may fail by half of the rest.

    >>> round(epsilon_of_runs(100, 100, 0, 100), 4)
    3.2813
    """
    fnr, fpr = _upper_rates(true_positives, members, false_positives, others, confidence)
    bounds = [0.0]
    for misses, alarms in ((fnr, fpr), (fpr, fnr)):
        if 1 - misses > delta:
            bounds.append(math.log((1 - misses - delta) / alarms))
    return max(bounds)


def gaussian_epsilon_of_runs(
    true_positives: int,
    members: int,
    false_positives: int,
    others: int,
    *,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Lower bound of ε from the same counts, for a mechanism that is known to be Gaussian.

    Model-based, and to be labeled so: μ = Φ⁻¹(1 − FPR) − Φ⁻¹(FNR) (Nasr et al., USENIX Security
    2023, arXiv 2302.07956), and the ε of μ-GDP. Arguments as `epsilon_of_runs`; δ > 0.

    >>> round(gaussian_epsilon_of_runs(80, 100, 5, 100, delta=1e-5), 4)
    8.5476
    """
    fnr, fpr = _upper_rates(true_positives, members, false_positives, others, confidence)
    mu = -float(ndtri(fpr)) - float(ndtri(fnr))
    return epsilon_of_mu(mu, delta) if mu > 0 else 0.0


def _upper_rates(
    true_positives: int, members: int, false_positives: int, others: int, confidence: float
) -> tuple[float, float]:
    """Upper ends of FNR and FPR; both hold together with `confidence`."""
    fnr = clopper_pearson(members - true_positives, members, confidence=confidence)[1]
    fpr = clopper_pearson(false_positives, others, confidence=confidence)[1]
    return fnr, fpr
