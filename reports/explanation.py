"""Why a scenario leaks, as data: `why.json`, and a block of `results.json`.

Absent parts are null: not tested, which is not "no leak".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedaudit.core.measures import Estimate, Rate

SCHEMA_VERSION = "1"
FILE = "why.json"
"""Name of the explanation's file in a run folder."""
Part = Literal["layers", "rounds", "regions", "artifacts", "clients"]
PARTS: tuple[Part, ...] = ("layers", "rounds", "regions", "artifacts", "clients")
BOXES: Mapping[str, tuple[float, float]] = {
    "eyes": (0.18, 0.42),
    "nose": (0.42, 0.60),
    "mouth": (0.60, 0.82),
}
"""From top to bottom, parts of the height; each spans the middle `SIDES` of the width."""
SIDES = (0.12, 0.88)
OUTLINE = "outline"
"""All that is in no box: forehead and hair, ears, chin, background."""


@dataclass(frozen=True)
class Leakage:
    """How much came back in one setting, over all targets.

    Attributes:
        ssim: Mean over images, interval by person.
        prior: The same for the prior-only control, which sees the same of an invented person.
        excess: ssim − prior, paired by image.
        cosine: Mean identity cosine; None where identity was not tested.
        reid: Share that the independent embedder matches to the right person; None likewise.
        rank1: Share whose person comes first of the gallery; None likewise.
        people: People in the gallery: chance of rank-1 is one in so many.
    """

    ssim: Estimate
    prior: Estimate
    excess: Estimate
    cosine: Estimate | None
    reid: Rate | None
    rank1: Rate | None
    people: int


@dataclass(frozen=True)
class Layer:
    """One layer of the update, attacked with the labels known.

    Attributes:
        name: First module of the layer, as parameters are named.
        parameters: Prefixes of their names.
        values: Numbers in them.
        alone: Leakage where the attacker sees this layer only; None where no attack can read so
            little: not tested.
        without: Leakage where it sees all but this layer; None where there is no other.
        lost: SSIM with all − SSIM without, paired by image: what only this layer gives. Near 0
            says that the others give the same (redundant), not that this one is harmless.
    """

    name: str
    parameters: tuple[str, ...]
    values: int
    alone: Leakage | None
    without: Leakage | None
    lost: Estimate | None


@dataclass(frozen=True)
class Layers:
    """Leakage layer by layer.

    Attributes:
        all: Leakage of the whole update.
    """

    all: Leakage
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Round:
    """One round: its number, what leaks in it, and what the network is worth by then.

    Attributes:
        round: 1-based; the network has seen `round` − 1 rounds of training.
        leakage: Of clients' updates in this round.
        accuracy: Verification accuracy on people who never train (0.5 is chance); None where the
            method or the data have none.
    """

    round: int
    leakage: Leakage
    accuracy: float | None


@dataclass(frozen=True)
class Region:
    """One region of the picture, means over targets.

    Attributes:
        name: Eyes, nose, mouth or outline.
        area: Share of the picture.
        recovered: Local SSIM within it.
        prior: The same for the prior-only control.
        heat: Share of the Grad-CAM heat of the identity match in the reconstruction.
        heat_original: The same in the original: where the embedder looks in a real photo.
        drop: Identity cosine that is lost when the region is painted over with the mean color.
    """

    name: str
    area: float
    recovered: Estimate
    prior: Estimate
    heat: Estimate | None
    heat_original: Estimate | None
    drop: Estimate | None


@dataclass(frozen=True)
class Regions:
    """Which regions came back, and which carry the match.

    Attributes:
        regions: By name.
        side: Places a side of the three maps below, row by row from the top left.
        recovered: Mean local SSIM, −1 to 1.
        heat, heat_original: Mean heat, as a multiple of an even spread; empty without an embedder.
        agreement: Correlation of the heat in the reconstruction with that in the original.
        layer: Of the embedder that the heat is taken at.
    """

    regions: tuple[Region, ...]
    side: int
    recovered: tuple[float, ...]
    heat: tuple[float, ...]
    heat_original: tuple[float, ...]
    agreement: Estimate | None
    layer: str


@dataclass(frozen=True)
class Player:
    """One player of a Shapley value.

    Attributes:
        name: What is shared or known, or which client.
        alone: v of this player alone.
        ssim: Its Shapley value in SSIM.
        identity: Its Shapley value in identity cosine (artifacts) or faces that are re-identified
            (clients); None where identity was not tested.
        together: Of a client: what comes back of its own photos out of the sum of everybody.
        hidden: Of a client: alone − together, paired; what the sum hides. Below 0 it loses.
    """

    name: str
    alone: Estimate
    ssim: Estimate
    identity: Estimate | None
    together: Estimate | None = None
    hidden: Estimate | None = None


@dataclass(frozen=True)
class Game:
    """Shapley values, and the two ends that they lie between.

    Attributes:
        nobody, everybody: v of the empty coalition and of all, in SSIM.
        method: "exact, 2^5 coalitions" or "sampled, 4 pairs of orders".
        coalitions: How many different ones were asked for.
        unread: Those of them that show something, but nothing that an attack at hand can use; they
            count as the prior.
    """

    players: tuple[Player, ...]
    nobody: Estimate
    everybody: Estimate
    method: str
    coalitions: int
    unread: int = 0


@dataclass(frozen=True)
class Origin:
    """Where the numbers come from."""

    fedaudit: str
    command: str
    git_commit: str | None
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    terms: str


@dataclass(frozen=True)
class Explanation:
    """Everything that the page shows, as data.

    Attributes:
        attacks: The attacks that were tried; the best by its own objective counts.
        skipped: Attacks of the scenario that were not used, each with the reason.
        notes: What was not tested, and why.
    """

    schema_version: str
    study: str
    scenario: str
    network: str
    method: str
    defense: str
    round: int
    batch_size: int
    image_size: int
    threat_model: str
    attacks: tuple[str, ...]
    skipped: tuple[str, ...]
    targets: int
    seed: int
    layers: Layers | None
    rounds: tuple[Round, ...] | None
    regions: Regions | None
    artifacts: Game | None
    clients: Game | None
    notes: tuple[str, ...]
    source: Origin
