"""One scored cell of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedaudit.core.claims import Claim
from fedaudit.core.reconstruction import SearchedBy

Role = Literal[
    "audit", "half_steps", "prior_only", "update_noise", "noise", "positive", "positive_prior"
]
"""What a cell is for: the audit itself, or one of its controls.

"half_steps": the audit with half of the attack's steps, which says whether it had converged.
"prior_only": the attack on the update of an invented person. "update_noise": the attack on noise in
place of the update. "noise": random images in place of a reconstruction. The last two are of
recorded runs only: an undefended step of the auditor's own, and its control.
"""
POSITIVE: tuple[Role, ...] = ("positive", "positive_prior")
"""Roles of a positive control that has cells of its own."""
NOISE_TARGETS = 2
"""Targets of each scenario, the first ones, whose update a further control replaces by noise."""
HALVED_TARGETS = 2
"""Targets of each line, the first ones, that are attacked again with half of the steps."""


@dataclass(frozen=True)
class Cell:
    """The coordinates of one trial; its `key` names its file."""

    scenario: str
    network: str
    method: str
    round: int
    batch_size: int
    defense: str
    attack: str
    threat_model: str
    target: int
    seed: int
    role: Role = "audit"

    @property
    def key(self) -> str:
        """A name that is a safe file name and unique within a study."""
        parts = (self.scenario, self.defense, self.attack, self.role)
        return "--".join((*parts, f"t{self.target:03d}", f"s{self.seed}"))


@dataclass(frozen=True)
class Opinion:
    """What a judge beside the first says of one image; fields as in `ImageScore`."""

    cosine: float
    reidentified: bool | None
    rank: int


@dataclass(frozen=True)
class ImageScore:
    """One reconstructed image against its original and its person's other photos.

    Attributes:
        person: Who the original shows; the client where that is not known.
        metrics: By the name of a registered metric: how alike the two are. Empty where the
            original is not known.
        cosine: Identity cosine to the person's gallery, as the first judge sees it; None without.
        reidentified: Cosine above the threshold at the calibrated FMR.
        rank: 1 + number of gallery people who are closer than the right one.
        wrong_reidentified: The same reconstruction tested against another target's person
            (the wrong-client control).
        nearest: Where it is not known who is shown: the closest person of the gallery, whom
            `cosine` and `reidentified` are about then. "" elsewhere.
        others: What the other judges say of the same image and person, by label.
        original: Whether the original itself counts as a photo of that person: no attack can be
            seen to do better. None where it was not asked.
        beside: Others whose photos are behind the same update and are not scored, as a defense
            puts them there: further photos of the client, or other clients' in a sum.
    """

    person: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    cosine: float | None = None
    reidentified: bool | None = None
    rank: int | None = None
    wrong_reidentified: bool | None = None
    nearest: str = ""
    others: Mapping[str, Opinion] = field(default_factory=dict)
    original: bool | None = None
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineup:
    """A target's reconstructions compared with everybody who could have been the target.

    Attributes:
        people: `[P]` candidates: who could have been behind the update, and has gallery photos.
        present: `[K]` who was behind it, once each, all among the candidates.
        cosines: `[K][P]` for each person who was, the identity cosine of every candidate to what
            was rebuilt in their place: the closest of the reconstructions that carry their label,
            or of all where none does. Which reconstruction resembles whom plays no part.
    """

    people: tuple[str, ...]
    present: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Sent:
    """One thing that the attacked client sent, as a reviewer is told of it.

    Attributes:
        name: As `fedaudit.captures.simulate.exposed_things.names_of` gives it.
        summary: What it holds, in numbers ("12 tensors, 567,264 values").
        bytes: Of its tensors.
        read: Whether the attack of this trial attacks it.
        used: Whether that attack does not attack it, but may use it beside what it attacks.
        readers: Registered attacks that read that kind, when the trial was run.
    """

    name: str
    summary: str
    bytes: int
    read: bool
    used: bool = False
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One finished cell.

    Attributes:
        cell: Where it stands in the study.
        images: One score per image of the target.
        labels_correct: Share of the label multiset that was recovered; None where not attempted.
        objective, iterations, gradient_evaluations, seconds, adaptive, history, restarts,
            closed_form, searched_by, unused: As in `Reconstruction`.
        claims: The privacy guarantees claimed for what was attacked, one for each unit.
        of: What the images are of, as in `Reconstruction`.
        sent: Everything that the client sent, in order.
        not_attacked: Why there was nothing to attack; "" where the attack ran.
        explained: Of recorded updates: cosine between the update and the one that a client would
            have made of the reconstruction. None where that is not known.
        explained_other: The same against another client's update.
        control: Of a control, what the attacked update was of, in words.
        lineup: What the test on identity needs; None where nobody could be identified, or the
            trial is older than the test.
    """

    cell: Cell
    images: tuple[ImageScore, ...]
    labels_correct: float | None
    objective: float
    iterations: int
    gradient_evaluations: int
    seconds: float
    adaptive: str
    claims: tuple[Claim, ...] = ()
    history: tuple[tuple[int, float], ...] = ()
    of: Literal["photos", "people"] = "photos"
    sent: tuple[Sent, ...] = ()
    not_attacked: str = ""
    explained: float | None = None
    explained_other: float | None = None
    control: str = ""
    lineup: Lineup | None = None
    restarts: int = 1
    closed_form: bool = False
    searched_by: SearchedBy = ""
    unused: tuple[str, ...] = ()
