"""Parts that verdicts share: what is sent outside of a mechanism, and what a claim lacks."""

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.stated_mechanism import StatedMechanism
from fedaudit.core.claims import COUNTS, Gap

COUNTERS = Gap("counters", "single numbers, as batch norm's num_batches_tracked, get no noise")
COUNTS_AND_METRICS = (
    Gap(COUNTS, "exact numbers of images travel in clear"),
    Gap("metrics", "losses and accuracies of the client travel in clear"),
)


def unjudged(stated: StatedMechanism) -> ClaimVerdict:
    """The verdict on a mechanism before anything is worked out."""
    return ClaimVerdict(
        mechanism=stated.name, stated=stated.words(), place=stated.place, standing="no claim"
    )


def missing_of(stated: StatedMechanism, *names: str) -> tuple[str, ...]:
    """Settings that a mechanism needs and the file does not give."""
    return tuple(
        f"{name} (set at run time)" if name in stated.unread else name
        for name in names
        if name in stated.unread or stated.number(name) is None
    )


def delta_reasons(delta: float, units: int | None, unit: str) -> tuple[str, ...]:
    """That δ allows to publish one of `units` whole; () where it does not, or nobody knows."""
    if not units or delta <= 1 / units:
        return ()
    return (
        f"δ = {delta:g} is larger than 1/n = {1 / units:.3g} for n = {units:,} {unit}s: it allows "
        f"to publish one {unit} whole",
    )
