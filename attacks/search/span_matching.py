"""Compares dummy images with what every layer's gradient says of its inputs (`layer_spans`)."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.evidence.common_maps import with_whole_maps
from fedaudit.attacks.evidence.layer_spans import (
    LayerSpan,
    decisive,
    span_distance,
    span_distances,
)
from fedaudit.attacks.evidence.pruned_spans import PrunedSpan
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.mini_batches import follow_steps
from fedaudit.core.errors import AttackError
from fedaudit.core.printable import first_few
from fedaudit.models.batch_norm import batch_norm_layers

SEEN = 1e-3
"""Mean squared sine below which the images that spans lead to are those of the update: in
benchmarks/prior.py and on ORL it was below 1e-4 where SSIM was above 0.85, and 3e-3 where not. The
same of a closed form: with the mean of two tokens that float32 does not tell apart at four places,
four photos of p09 and p10 through timm's ViT-S have 1.5e-4, at an SSIM of 0.996 and more."""
UNFITTED = 0.03
"""The same of a batch's photos by `token_placing`, which were not fitted to the spans: with some
tokens in wrong places four photos of p05 and p06 through timm's ViT-S have 3e-3 to 3e-2, at an SSIM
of 0.91 to 0.78, where a search that is fitted to them ends at 3e-3 to 6e-3, and at 0.2."""
SHARP = 10
"""Equations an unknown pixel, over all layers, below which fine detail is left open. At batch 1 a
MobileFaceNet at 112 px has 3.5, torchvision's MobileNets at 64 px 5.2 to 9.4, where keeping the
variation's weight makes a face of noise; its EfficientNet-B0 has 17, the house's networks 25, its
ResNets and ConvNeXt 42 and more."""
# By one photo of p01, fresh, at 64 px (benchmarks/deployed_networks.py --only --also NETWORK
# --people p01 p02 --set attacks.search.span_matching.FINE=0): SSIM of EfficientNet-B0 from 0.75 to
# 0.95, B1 0.81 to 0.90, RegNetX-400MF 0.55 to 0.78, RegNetY-400MF 0.77 to 0.82, MixNet-S 0.13 to
# 0.58, ResNet-18 at 112 px 0.82 to 0.94. Until 2026-11-29 waves began from a
# smooth search by pixels: then they brought ConvNeXt-Tiny, which has 3, from 0.80 down to 0.31.
# Since then they begin from noise, and bring it from 0.83 to 0.62 (`SHARP=1000`). Its like are
# Swin-T with 2, iResNet-18 and ResNets at 64 px with 5 to 6.
FINE, STRIDE = 1.0, 4
"""The same of layers alone that see one pixel of `STRIDE` a side or more: a network that folds
pixels into channels before it has fewer positions than inputs holds as many equations, of what is
coarse. It does not matter where the first layer is among them, and sees pixels themselves."""
FREE = 0.5
"""The same below which images are mostly guessed: eight photos at 112 px in training mode
through MobileFaceNet have 0.13 and come back as noise."""
# By a photo of p01 in training mode, its variation 0.069: through a fresh ResNet-18 a smooth search
# ends at a distance of 7.8e-3, SSIM 0.88, a less smooth one at 6.5e-3, 0.66 and a variation of
# 0.147; through one pre-trained for 20 steps 1.9e-4 with 0.070 is 0.97, 1.4e-4 with 0.082 0.92.
# Weights of 0.013 and 0.004 tell these apart. With 0.02 a trained one keeps 1e-4 where 2e-5 is
# right; with 0.01 the fresh one does not come to the first pair, for turns that begin smoother.
ROUGHNESS = 0.01
"""Weight of the total variation in the choice among results, for one photo behind batch norm in
training mode: noise explains an update there before the image does."""
DRIFTED = 0.01
"""Mean squared sine of the middle layer from which on what explains an update better than the true
images is noise: 2e-3 of two steps on eight photos of p01 and p02, 2e-2 of two epochs of
mini-batches on sixteen (benchmarks/subspace.py --misfits)."""
# By a photo of p01 through an iResNet-18 at 112 px, pre-trained for 20 steps: 16 steps of L-BFGS
# brought it from 56 to 74 dB, from a distance of 2e-5 to 2e-7, for 64 of 165 CPU s. Photos
# through a trained ResNet-18 at 64 px end at 5e-6 with 39 dB, above this.
EXACT = 2e-6
"""Mean squared sine below which L-BFGS stops: what is left cannot be seen."""
# With 8, eight photos of p01 and p02 through a trained ResNet-18 in training mode, which have 8
# layers, go from SSIM 0.88 (134 CPU s) to 0.85 (120). Where equations are few, too: four photos of
# p09 and p10 through a fresh MobileNetV2 go from 0.70 to 0.66 (docs/benchmarks/search_settings.md).
TURNS = 10
"""Layers from which on steps of Adam go down every other one's distance in turn."""
EXPLAINED = 1e-4
"""Mean squared sine below which images are as good as exact: that of float32 is 1e-6 and less."""


def is_left_to_spans(evidence: Evidence, layers: Sequence[str], *, use_first_fc: bool) -> bool:
    """Whether no loss and no map is known, and what layers' inputs span decides the images."""
    first_fc = evidence.reachable_first_fc if use_first_fc else None
    has_maps = first_fc is not None and first_fc.maps is not None
    return evidence.blind and not has_maps and evidence.spans_decide(layers)


def are_many(spans: Sequence[LayerSpan], pixels: int, count: int) -> bool:
    """Whether half of the layers lead to images as all of them do, by layers and by equations."""
    held = sum(span.equations(count) for span in spans)
    return len(spans) >= TURNS and held >= SHARP * count * pixels


def lead_of_spans(
    evidence: Evidence, layers: Sequence[str], restarts: int
) -> "SpanMatching | None":
    """What layers' inputs span, where nothing was done to the update that it would not show."""
    if evidence.photos.transforms or evidence.adaptation.special or evidence.private:
        return None
    if evidence.signs:  # what they lead to is too far off to be left as it is, or gone on from
        return None
    try:
        spans = SpanMatching(evidence, layers=layers, restarts=restarts)
    except AttackError:  # no layer says anything
        return None
    return spans if spans.follows else None


def unread_parts(evidence: Evidence) -> tuple[str, ...]:
    """That some layers say nothing of what enters them, a sentence, if any do."""
    unread = evidence.reader.unread(list(evidence.target))
    if not unread:
        return ()
    return (
        f"what enters {first_few(unread, quote=True)} is not to be read, as the network does not "
        "apply them as Conv2d, ConvTranspose2d and Linear apply a weight: left out",
    )


def open_parts(spans: "SpanMatching | None") -> tuple[str, ...]:
    """That spans decide images in part alone, a sentence, where they hold too few equations."""
    if spans is None or spans.equations >= FREE:
        return ()
    return (
        "what the layers' inputs span holds fewer than half as many equations as the images have "
        "numbers: the rest is guessed, and other images fit the update as well",
    )


class SpanMatching:
    """How far the inputs that dummy images send to each layer are from spanning what they must.

    Moves images as `Matching` does, for a forward and a backward pass a step; the images of a batch
    together, as only all of them span what the update shows. It knows no labels and no order.

    Args:
        evidence: What was gathered.
        angle: Take the root of the distance, as `Matching` does.
        layers: Only weights whose names start with one of these; () takes all.
        restarts: Independent starts.

    Raises:
        AttackError: No layer's gradient can say anything of its inputs.
    """

    separable = mappable = has_features = False
    loss = "spans"
    dummy = first_fc = None
    free: tuple[Tensor, ...] = ()
    fixed: tuple[Tensor, ...] = ()

    def __init__(
        self,
        evidence: Evidence,
        *,
        angle: bool = False,
        layers: Sequence[str] = (),
        restarts: int = 1,
    ) -> None:
        self.evidence, self.angle, self.restarts = evidence, angle, restarts
        self.scales: tuple[float, ...] = (1.0, 1.0)
        self.evaluations = 0
        self._last = evidence.like.new_empty(0)
        self._early_first = 0.0
        evidence.model.requires_grad_(True)
        start = tuple(layers or [""])
        spans = tuple(span for span in evidence.spans if span.name.startswith(start))
        if not spans:
            target = {n: g for n, g in evidence.target.items() if n.startswith(start)}
            spans = find_spans(
                evidence.reader, target, private=evidence.private, least=1, signs=evidence.signs
            )
        if not spans:
            raise AttackError(
                "subspace matching has nothing to go by: no layer of the network (of "
                f"{first_few(list(target), quote=True)}) has fewer positions than inputs for "
                f"{evidence.count} images of {'×'.join(map(str, evidence.shape))}, is applied as "
                "torch's Conv2d, ConvTranspose2d, Linear, @ or einsum apply a weight, and "
                "shares its gradient. Use gan_inversion or inverting_gradients."
            )
        # The others saw inputs with random parts left out.
        certain = tuple(span for span in spans if span.certain)
        choice = certain if decisive(certain, evidence.pixels, evidence.count) else spans
        self.reader, self.start = evidence.reader, start
        exact = not evidence.completed
        self.spans = with_whole_maps(evidence.reader, choice, evidence.pixels, exact=exact)
        whole = tuple(span for span in self.spans if span.whole)
        self._whole = whole if any(span.alone for span in whole) else ()

    @property
    def decides(self) -> bool:
        """Whether the spans leave the images no freedom."""
        return decisive(self.spans, self.evidence.pixels, self.evidence.count)

    @property
    def equations(self) -> float:
        """How many the spans hold for each unknown number of the images."""
        evidence = self.evidence
        held = sum(span.equations(evidence.count) for span in self.spans)
        return held / (evidence.count * evidence.pixels)

    @property
    def leaves_detail(self) -> bool:
        """Whether so little is spanned that the images' finest detail is left open."""
        evidence = self.evidence
        if self.equations < SHARP:
            return True
        if evidence.count > 1 or self.coupled:  # these have schedules of their own
            return False
        first, (_, height, width) = next(iter(evidence.reader.layers)), evidence.shape
        fine = [s for s in self.spans if s.positions * STRIDE**2 >= height * width]
        reads_pixels = any(span.name == first for span in self.spans)
        return not reads_pixels and sum(s.equations(1) for s in fine) < FINE * evidence.pixels

    @property
    def coupled(self) -> bool:
        """Whether batch norm is in training mode, and normalizes images by their batch."""
        return any(m.training for m in batch_norm_layers(self.evidence.model).values())

    @property
    def roughness(self) -> float:
        """Weight of the total variation where results of a search are compared."""
        return ROUGHNESS if self.coupled and self.evidence.count == 1 else 0.0

    @property
    def drifted(self) -> bool:
        """Whether the true images miss most layers' spans: of signs, or after several steps."""
        expected = sorted(self.evidence.misfit.values())
        misses = bool(expected) and expected[len(expected) // 2] > DRIFTED
        return misses or self.evidence.signs

    @property
    def blurred(self) -> bool:
        """Whether true images miss spans by what is not known: of signs, or drawn for a batch."""
        told = self._whole or self.evidence.misfit or self.evidence.count == 1
        drawn = not (told or all(span.certain for span in self.spans))
        return drawn or self.evidence.signs

    @property
    def whole(self) -> "SpanMatching | None":
        """What is known of each image of a batch by itself, or of all its patches; None of one.

        It decides most of an image, and costs a third of a step by all spans.
        """
        if not self._whole:
            return None
        part = copy.copy(self)
        part.reader, part.spans = self.evidence.reader, self._whole
        return part

    @property
    def exact(self) -> bool:
        """Whether the true images meet all spans but for rounding, as far as is known."""
        evidence = self.evidence
        noisy = evidence.private or evidence.misfit or evidence.signs or evidence.completed
        return not (noisy or self.pruned) and all(span.certain for span in self.spans)

    def early_first(self, rate: float) -> "SpanMatching":
        """The same, but late layers count little as long as early ones are far from their spans.

        By exp(-rate · the sum of their distances), in the order of the network, as early times come
        before late ones where a network learns a differential equation (Wang et al. 2022,
        2203.07404, eq. 2.12). Each image's own maps are left out.
        """
        part = copy.copy(self)
        place = {name: number for number, name in enumerate(self.evidence.reader.layers)}
        mixed = [span for span in self.spans if not span.alone]
        part.spans = tuple(sorted(mixed or self.spans, key=lambda span: place[span.name]))
        part._early_first = rate
        return part

    @property
    def pruned(self) -> bool:
        """Whether only some entries of each row are compared, as no others were sent."""
        return any(isinstance(span, PrunedSpan) for span in self.spans)

    @property
    def _by_turns(self) -> bool:
        """Whether a step of Adam goes down every other layer's distance in turn."""
        evidence = self.evidence
        apt = are_many(self.spans, evidence.pixels, evidence.count)
        return apt and not (self.drifted or self.pruned)

    @property
    def follows(self) -> bool:
        """Whether rows of the update still lie in the spans, but for noise whose size is known."""
        adaptation = self.evidence.adaptation
        whole = adaptation.columns or self.pruned or self.evidence.completed
        missing = adaptation.sparse and not whole
        bent = adaptation.bent and not adaptation.signs
        return not (missing or bent or adaptation.followed or adaptation.images)

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
        """No gradients, and the mean squared sine over the layers; as `Matching`.

        A step within a turn goes down every other layer's distance, and counts the others' as they
        were in the step before: the true images meet all spans, and so half of them lead there.
        """
        del free, functional, differentiable
        self.evaluations += len(which)
        if self._early_first:
            apart = span_distances(self.reader, self.spans, images)
            before = apart.detach().cumsum(0) - apart.detach()
            return (), (-self._early_first * before).softmax(0) @ apart
        if part is None or not self._by_turns:
            return (), span_distance(self.reader, self.spans, images)
        turn = slice(part % 2, None, 2) if part else slice(None)
        apart = span_distances(self.reader, self.spans[turn], images)
        if not part:
            self._last = torch.empty_like(apart, requires_grad=False)
        self._last[turn] = apart.detach()
        return (), apart.mean() + (self._last.mean() - apart.mean()).detach()

    def objective(self, dummy: Gradients, feature_distance: Tensor) -> Tensor:
        """The distance in units of what generic faces give (`calibrate`), or its root."""
        del dummy
        distance = feature_distance / self.scales[1]
        return (distance + 1e-6).sqrt() if self.angle else distance

    def distance(self, images: Tensor) -> float:
        """Mean squared sine over the layers, of a batch `[N, C, H, W]`."""
        with torch.no_grad():
            return float(span_distance(self.reader, self.spans, images))

    def bears_out(self, images: Tensor) -> bool:
        """Whether images `[N, C, H, W]` of a closed form are near enough to what is spanned."""
        return self.distance(images) <= (SEEN if self.evidence.count == 1 else UNFITTED)

    def follow(self, images: Tensor) -> bool:
        """Read the network at each step, as `images` `[N, C, H, W]`, nearly right, tell it.

        Returns whether that is possible; all is read as before where it is not.
        """
        reader = follow_steps(self.evidence, images)
        if reader is None:
            return False
        spans = self.evidence.spans_within(reader)
        chosen = tuple(span for span in spans if span.name.startswith(self.start))
        if chosen:
            self.reader, self.spans = reader, chosen
        return bool(chosen)

    def in_own_order(self, images: Tensor) -> Tensor:
        """A batch `[N, C, H, W]`, sorted as the maps that are known of each image are, if any.

        Between stages images are brought in the order of the labels, which these do not have.
        """
        known = [span for span in self._whole if span.alone]
        if not known:
            return images
        like = images.new_zeros(len(images), len(images))
        with torch.no_grad():
            uses = self.evidence.reader.inputs([span.name for span in known], images)
            for span in known:
                rows = span.rows(uses[span.name])[0]
                like += span.basis[0].to(rows) @ F.normalize(rows, dim=1).T
        own = linear_sum_assignment(-like.cpu().numpy())[1]
        return images[torch.as_tensor(own, device=images.device)]

    def distance_to(self, dummy: Gradients) -> Tensor:
        """Always 0: spans compare layer inputs, not gradients."""
        del dummy
        return self.evidence.like.new_zeros(())

    def calibrate(self, images: Tensor) -> None:
        """Set the unit to the median over batches of generic faces `[n, C, H, W]`.

        Of whole batches: one image cannot span what a batch spans. Without `angle` the unit is 1,
        as priors are weighed for it.
        """
        if not self.angle:
            return
        batches = torch.split(images, self.evidence.count)
        with torch.no_grad():
            each = torch.tensor([self.distance(batch) for batch in batches])
        self.scales = (1.0, max(float(each.median()), 1e-6))

    def keep(self, restarts: Sequence[int]) -> None:
        """Drop all restarts but these."""
        self.restarts = len(restarts)
