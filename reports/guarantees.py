"""What a defense claims of differential privacy, in one line with what its training is worth."""

from collections.abc import Sequence

from fedaudit.core import claims
from fedaudit.core.claims import Claim
from fedaudit.core.measures import Utility
from fedaudit.reports.comparison import DefenseLine
from fedaudit.reports.plain_names import plain_text

UNSTATED = ("none", "recorded")
"""Names of what is no defense of ours: the undefended client, and a recorded one."""
NOT_STATED = "none stated"
"""What stands for the claim of such a one."""


def guarantee(line: DefenseLine) -> str:
    """The claim of the audited update, and of the training whose accuracy stands beside it."""
    if not line.claims:
        return NOT_STATED if line.name in UNSTATED else f"none ({claims.HEURISTIC})"
    return plain_text(claims.in_short(line.claims)) + of_training(line.claims, line.utility)


def of_training(update: Sequence[Claim], worth: Utility | None) -> str:
    """ε of all rounds of a training, to stand behind that of one update beside its accuracy.

    Args:
        update: Claims of the audited update.
        worth: Of the training; nothing is added where it was not measured.
    """
    whole = worth.training_claims if worth else ()
    parts = []
    for claim in whole:
        beside = [one for one in update if one.unit == claim.unit]
        if any(one.rounds == claim.rounds for one in beside):
            continue
        size = "broken" if claim.broken else f"ε = {claims.epsilon(claim)}"
        if not claim.broken and any(one.delta != claim.delta for one in beside):
            size += f" (δ = {claim.delta:g})"
        unit = f" per {claim.unit or 'unit not stated'}" if len(whole) > 1 else ""
        rounds = f"the {claim.rounds} rounds" if claim.rounds else "the whole training"
        parts.append(f"; {size}{unit} over {rounds} of this accuracy")
    return "".join(parts)
