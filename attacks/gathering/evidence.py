"""An observation, made ready for matching: what the update says, and how defenses are met."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from fedaudit.attacks.adaptive.adaptation import Adaptation
from fedaudit.attacks.adaptive.changed_photos import ChangedPhotos
from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import FirstFullyConnected
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, decisive
from fedaudit.attacks.evidence.layer_trust import alike_by_direction, trusted
from fedaudit.attacks.evidence.pruned_spans import find_pruned_spans
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.evidence.unshared_layers import precedes_private, public_depth
from fedaudit.core.errors import AttackError


@dataclass(frozen=True)
class Evidence(Reading):
    """An observation, made ready for matching: the reading, and how defenses are met.

    Attributes:
        adaptation: How the defenses in use are met.
        photos: As they trained, of photos as they are searched for.
    """

    adaptation: Adaptation = field(default_factory=Adaptation)
    photos: ChangedPhotos = field(default_factory=lambda: ChangedPhotos((), 0))

    @property
    def reachable_first_fc(self) -> FirstFullyConnected | None:
        """What the first fully connected layer gives away, where dummy images reach it."""
        is_reachable = public_depth(self.model, self.private) is None
        return self.first_fc if is_reachable and self.trains_body else None

    @cached_property
    def spans(self) -> tuple[LayerSpan, ...]:
        """What the inputs of each layer span."""
        if self.adaptation.pruned and not self.completed:
            pruned = find_pruned_spans(self.reader, self.target, private=self.private)
            return trusted(pruned, self.misfit)
        target = {n: self.target[n] for n in self.completed} if self.completed else self.target
        spans = find_spans(
            self.reader,
            target,
            private=self.private,
            clean=self.clean,
            noise=self.adaptation.std_of,
            gaps=self.adaptation.columns,
            signs=self.signs,
        )
        return alike_by_direction(spans) if self.signs else trusted(spans, self.misfit)

    def spans_within(self, reader: InputReader) -> tuple[LayerSpan, ...]:
        """The same of the network at moments of local training, as `reader` reads it."""
        return trusted(find_spans(reader, self.target, private=self.private), self.misfit)

    def spans_decide(self, layers: Sequence[str] = ()) -> bool:
        """Whether spans that are known as a whole leave the images no freedom.

        Args:
            layers: Of weights whose names start with one of these; () takes all.
        """
        try:
            whole = [s for s in self.spans if s.whole and s.name.startswith(tuple(layers or [""]))]
        except AttackError:  # a network that does not run on images of this shape
            return False
        return decisive(whole, self.pixels, self.count)

    @property
    def solvable(self) -> bool:
        """Whether local layers can be solved for: something shared precedes them, or spans do."""
        return self.spans_decide() or precedes_private(
            self.model, self.private, self.target, self.shape
        )

    def reveal(
        self, images: Tensor, labels: Tensor, attacker: Attacker
    ) -> tuple[Tensor, Tensor, bool]:
        """Photos and labels, of images `[N, C, H, W]` and labels that explain the update.

        And whether that, with what the attacker can do, takes all special defenses into account.
        """
        special = self.adaptation.special
        for one in special:
            images, labels = one.reveal(images, labels, self, attacker)
        return images, labels, all(one.handled(self, attacker) for one in special)
