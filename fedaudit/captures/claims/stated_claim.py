"""The guarantee that a federation states of its updates, as a `Claim`."""

from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.core.claims import Claim, Neighbors


def claim_of(claim: DpClaim | None) -> tuple[Claim, ...]:
    """The guarantee as the federation claims it, for its updates; () where it claims none."""
    if claim is None or claim.epsilon is None or claim.delta is None:
        return ()
    settings = {"C": claim.clip, "σ": claim.noise, "sensitivity": claim.sensitivity}
    neighbors: dict[str | None, Neighbors] = {
        "add_remove": "add or remove one",
        "replace": "replace one",
    }
    return (
        Claim(
            epsilon=claim.epsilon,
            delta=claim.delta,
            unit={"example": "image", None: ""}.get(claim.unit, claim.unit or ""),
            neighbors=neighbors.get(claim.neighbors, ""),
            covers=("update",),
            rounds=None,
            mechanism=f"noise of the {claim.where}" if claim.where else "as claimed",
            settings={name: value for name, value in settings.items() if value is not None},
            accountant="claimed by the federation, not computed here",
            sampling="" if claim.sampling is None else f"sampling with q = {claim.sampling:g}",
        ),
    )
