"""A client's round as intercepted: what the server saw, and what only the scorer sees."""

from dataclasses import dataclass

from torch import Tensor

from fedaudit.core.claims import Claim
from fedaudit.core.observation import DefenseFacts, Observation


@dataclass(frozen=True)
class Secret:
    """The client's data. Never handed to an attack.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64.
        people: `[N]` names of the people shown, for the gallery.
        sources: `[N]` where each image came from (file or index), for provenance.
        portraits: One image of each person whom the client has, `[P, C, H, W]`, whether they are in
            the batch or not, in the order of the client's own classes; what templates are judged
            by. None where the client shares none.
        portrayed: `[P]` their names.
        portrayed_as: `[P]` their classes in the client's head, where these are not 0 to P − 1:
            a head that all clients share has other clients' people besides.
        audited: How many of the images, the first ones, are scored: those that the study asked
            for, where a defense puts others behind the update as well. None for all.
        behind: `[M]` labels of all images behind the update, where the client added images to its
            photos; None elsewhere.
        defense: The defenses in use, in order, of which the attacker may not be told; None where
            nobody knows.
        eligible: Names of everybody who could have been behind this update, by the lots that
            dealt people to clients; () where there were none, as in a real run.
        candidates: Whether these are all photos that the batch may be of, rather than the batch:
            each reconstruction is then compared with the one that it is closest to.
    """

    images: Tensor
    labels: Tensor
    people: tuple[str, ...]
    sources: tuple[str, ...]
    portraits: Tensor | None = None
    portrayed: tuple[str, ...] = ()
    portrayed_as: tuple[int, ...] = ()
    audited: int | None = None
    behind: Tensor | None = None
    defense: tuple[DefenseFacts, ...] | None = None
    eligible: tuple[str, ...] = ()
    candidates: bool = False


@dataclass(frozen=True)
class Capture:
    """One client's round as intercepted.

    Attributes:
        seen: What the server saw.
        secret: None for a run without a canary client.
        claims: The guarantees that are claimed for it, one for each unit.
        control: Of a control's capture, what was shared is of, in words; `secret` is then that of
            the audited client, about whom nothing was shared.
    """

    seen: Observation
    secret: Secret | None = None
    claims: tuple[Claim, ...] = ()
    control: str = ""
