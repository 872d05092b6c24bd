"""Where the captures of a study come from: a simulated federation, or one that was recorded.

Apart from the other protocols, because a source opens secrets, and attacks never import it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from fedaudit.core.capture import Capture, Secret
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Attack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.recorded_run import Protection
from fedaudit.core.scenario import Federation
from fedaudit.core.trial import Cell


@dataclass(frozen=True)
class SourceFacts:
    """What a source says of its captures: a report concludes no more than this allows.

    Attributes:
        truth: "complete" where the photos behind every update are known, "brought" where only
            those are that an auditor brought along.
        originals: Whether reconstructions can be compared with any client's photos.
        gallery: Whether there may be photos of people to recognize faces by.
        training: How clients trained, in words; "" where the study says it.
        model_states: The state of the audited model of each scenario, in words; of none where the
            study says it.
        protections: What the updates show of protections, and of faults in them.
        positive: The faces of a positive control of its own, in words; "" where rows that nothing
            protects are the control.
        familiar: Labels of the attacks whose prior knows the faces of that control: it does not
            show of them that they work.
        overlaps: Why the prior of an attack knows the audited photos, by the attack's label: no
            word rests on what it finds.
        strangers: Labels of attacks from other packages or files. What those are made of may know
            which person stands behind which label, which ours cannot know of a fresh round.
    """

    truth: Literal["complete", "brought"] = "complete"
    originals: bool = True
    gallery: bool = True
    training: str = ""
    model_states: Mapping[str, str] = field(default_factory=dict)
    protections: tuple[Protection, ...] = ()
    positive: str = ""
    familiar: tuple[str, ...] = ()
    overlaps: Mapping[str, str] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()


COMPLETE = SourceFacts()
"""Of captures whose photos are all known."""


@runtime_checkable
class FaceEmbedder(Protocol):
    """An independent network that judges identity."""

    @property
    def network(self) -> nn.Module:
        """The network behind the judge; its weights are part of every cache key."""

    def frame(self, photos: Tensor) -> Any:
        """Where in photos `[N, 3, H, H]` of a set it looks: left, top, right, bottom.

        In parts of a side; found once, and applied to every image with the set's crop.
        """

    def within(self, frame: Any) -> Callable[[Tensor], Tensor]:
        """What turns images `[N, 1 or 3, H, H]` in [0, 1] into unit vectors `[N, D]`."""


class Explained(NamedTuple):
    """Cosines between updates and the one that a client would make of a reconstruction.

    Attributes:
        own: Of the update that was attacked; None where it is not measured.
        other: Of another client's update, the wrong-client control.
    """

    own: float | None = None
    other: float | None = None


class Source(Protocol):
    """Where the captures of a study come from: a simulated federation, or a recorded one."""

    def capture(self, cell: Cell, attack: Attack | None = None) -> Capture:
        """What the server saw in a cell, and the truth as far as it is known.

        The cell's attack may choose what the server sends; None is for random images.
        """

    def facts(self) -> SourceFacts:
        """What a report must know of these captures; known before anything runs."""

    def limitations(self) -> tuple[str, ...]:
        """What these captures cannot show, a sentence each."""

    def notes(self) -> tuple[str, ...]:
        """What else a plan and a report say, such as what a defense does to a network."""

    def provenance(self) -> dict[str, Any]:
        """Software, machine, terms and hashes of the data, as plain values."""

    def gallery(self, federation: Federation, embedder: FaceEmbedder) -> dict[str, Tensor] | None:
        """Embeddings `[N, D]` of people, `reference/PERSON` and `probe/PERSON`.

        And `nearest/PERSON`, `[1]`, the PSNR in dB of a photo of theirs to the nearest other one.

        None where there are no photos of people.
        """

    def wrong_person(self, cell: Cell, secret: Secret, found: Reconstruction) -> str | None:
        """Somebody of another client whom the cell's target does not show; None for nobody."""

    def explained(self, cell: Cell, seen: Observation, found: Reconstruction) -> Explained:
        """How much of the update a reconstruction explains, where nothing else tells."""
