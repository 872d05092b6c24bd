"""What each image's map must be, and how far dummy images are from it.

Matching a map that is known exactly costs one pass through the layers below it instead of three
through all, does not mix the images of a batch, and does not fade as a network is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.evidence.feature_maps.known_maps import flat_maps, known_maps
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, decisive
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.models.facenet import FaceNet, require_face_net

INVERTED_FLOOR = 0.01
"""Error of an inverted map's direction, in units of the error that `invert_last_block` reports."""
SHARP_SPAN = 0.01
"""Relative error of the least certain direction up to which a span is solved for."""
SPAN_FLOOR = 1e-3
"""Length of a residual, in units of that error."""
SKETCH = 3
"""Mixtures a pixel."""


VOUCHING = 30
"""Steps from which an attack begins by spans: in 12 (benchmarks/attack_power.py, effort 0.1) it so
found 3 of 4 people whom nothing protects and nobody behind defenses that hide none, in 36 (0.3) all
four and half of them."""


@dataclass(frozen=True)
class Goal:
    """The unit direction that each image's feature map must have.

    Attributes:
        directions: `[N, F]`, unit rows in double precision.
        depth: How many modules of the body make the map; None for what enters the embedding.
        floor: Length of a residual that the error of `directions` explains.
    """

    directions: Tensor
    depth: int | None
    floor: float

    def reached(self, model: FaceNet, images: Tensor) -> Tensor:
        """The unit directions that `images` give, `[n, F]`."""
        return F.normalize(flat_maps(model, self.depth, images), dim=1)


def goal_of(evidence: Evidence, *, exact: bool = False) -> Goal | None:
    """The earliest map that is known of every image; None where none is, or none says enough.

    A map that averaging has shortened has fewer numbers than an image, and says too little.
    `exact`: only a map that is known to six digits, and has as many numbers as there are pixels to
    solve for. The inverted maps of a batch are not: telling its positions apart costs two digits,
    which a search does not mind and a solver does.
    """
    if evidence.coupled or evidence.photos.transforms:  # the maps are those of changed photos
        return None
    maps = known_maps(evidence, invert=not (exact and evidence.count > 1))
    if maps is None or maps.origin == "average":
        return None
    if maps.origin == "inverted":
        rows = F.normalize(maps.maps.flatten(1).double(), dim=1)
        return Goal(rows, maps.depth, INVERTED_FLOOR * maps.error)
    if exact and maps.maps[0].numel() <= evidence.pixels:
        return None
    assert evidence.first_fc is not None
    sizes = torch.linalg.svdvals(evidence.first_fc.gradient.double())
    behind = float(sizes[evidence.count] / sizes[evidence.count - 1])
    return Goal(F.normalize(maps.maps.flatten(1).double(), dim=1), None, behind)


def are_second_to_spans(evidence: Evidence, steps: int) -> bool:
    """Whether what layers' inputs span says more than maps that are known: it holds all layers.

    Of an update that noise or a defense has changed, maps say the more: through the house's fresh
    network noise as long as the update leaves SSIM 0.98 by maps and 0.85 by spans (one photo of
    tests/attacks/test_assumptions.py). And spans find an undefended control in so few steps that it
    would vouch for a search by maps, under a defense, to which these are too few.

    Args:
        evidence: What was gathered.
        steps: Those of the whole attack.
    """
    if goal_of(evidence) is None:
        return True
    left = evidence.adaptation
    left = replace(left, sparse=left.sparse and not left.columns)
    return left.exact and steps >= VOUCHING


@dataclass(frozen=True)
class SpanGoal:
    """What no patch of an image may have: a part outside the spans that the update gives away.

    Each image by itself is sent there; which images the batch has, only all of them together say.

    Attributes:
        spans: Of layers whose patches are spanned exactly.
        directions: `[N, M]` zeros in double precision: nothing is left outside.
        floor: Length of a residual that the error of the spans explains.
        sketches: `[F, S]` for each span: random mixtures stand for the parts outside, of which
            there are many times more than pixels.
    """

    spans: tuple[LayerSpan, ...]
    directions: Tensor
    floor: float
    sketches: tuple[Tensor, ...]

    def reached(self, model: nn.Module, images: Tensor) -> Tensor:
        """What `images` `[n, C, H, W]` have outside, `[n, M]`."""
        channels, height, width = images.shape[1:]
        reader = InputReader(model, (channels, height, width), len(images))
        inputs = reader.rows([span.name for span in self.spans], images)
        rows = []
        for span, sketch in zip(self.spans, self.sketches, strict=True):
            patches = inputs[span.name][0].view(len(images), span.positions, -1)
            outside = [span.outside(one) for one in patches]
            rows.append((torch.stack(outside) @ sketch.to(images)).flatten(1))
        return torch.cat(rows, dim=1)


def span_goal_of(evidence: Evidence) -> SpanGoal | None:
    """The spans that are known exactly, where they leave an image no freedom."""
    if evidence.coupled or not evidence.blind:
        return None
    spans = tuple(
        s for s in evidence.spans if s.full and s.floor < SHARP_SPAN and len(s.basis) == 1
    )
    if not decisive(spans, evidence.pixels, evidence.count):
        return None
    generator = torch.Generator().manual_seed(0)
    sketches, width = [], 0
    for span in spans:
        size = span.basis.shape[2]
        share = min(size, -(-SKETCH * evidence.pixels // (span.positions * len(spans))))
        sketch = torch.randn(size, share, generator=generator, dtype=torch.float64)
        sketches.append((sketch / share**0.5).to(span.basis))
        width += span.positions * share
    # Rounding of the update, spread over all directions but the few that are known least.
    floor = SPAN_FLOOR * max(s.floor for s in spans)
    zeros = torch.zeros(evidence.count, width).to(spans[0].basis)
    return SpanGoal(spans, zeros, floor, tuple(sketches))


class MapMatching:
    """Compares dummy images with the maps they must have; moves images as `Matching` does.

    Distances are in units of those of `images` `[N, C, H, W]`; `matching` counts the evaluations.
    """

    separable = True
    free: tuple[Tensor, ...] = ()
    fixed: tuple[Tensor, ...] = ()

    def __init__(self, matching: Matching | SpanMatching, goal: Goal, images: Tensor) -> None:
        self.matching, self.goal = matching, goal
        self.model = require_face_net(matching.evidence.model, "a map")
        self.units = torch.ones(len(images)).to(images)
        with torch.no_grad():
            distances = [self.gradients(one[None], [i])[1] for i, one in enumerate(images)]
        self.units = torch.stack(distances).clamp_min(1e-6)

    @property
    def mappable(self) -> bool:
        """Whether restarts can share a pass, as the matching engine says."""
        return self.matching.mappable

    @property
    def evaluations(self) -> int:
        """Images compared so far, as the matching engine has counted them."""
        return self.matching.evaluations

    @evaluations.setter
    def evaluations(self, value: int) -> None:
        self.matching.evaluations = value

    def gradients(
        self,
        images: Tensor,
        which: Sequence[int],
        free: Sequence[Tensor] | None = None,
        *,
        functional: bool = False,
        differentiable: bool = True,
        part: int | None = None,
    ) -> tuple[Gradients, Tensor]:
        """No gradients, and the mean distance of the maps in the images' units; as `Matching`."""
        del free, functional, differentiable, part
        self.evaluations += len(which)
        rows = self.goal.directions[list(which)].to(images)
        cosines = (self.goal.reached(self.model, images) * rows).sum(1)
        return (), ((1 - cosines) / self.units[list(which)]).mean()

    def objective(self, dummy: Gradients, feature_distance: Tensor) -> Tensor:
        """The root of the distance: an angle, for the reason that `Matching` gives."""
        del dummy
        return (feature_distance.clamp_min(0) + 1e-6).sqrt()
