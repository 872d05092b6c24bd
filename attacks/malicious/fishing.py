"""A head under which one image's gradient drowns all others (Wen et al., ICML 2022)."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.labels.head_gradient import class_head
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.malicious.block import NEEDS, image_shape
from fedaudit.attacks.malicious.fished_labels import labels_of_fished
from fedaudit.attacks.malicious.fishing_head import FishingHead
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.core.choices import check_choices
from fedaudit.core.errors import AttackError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.protocols import Attack, AttackCategory, Progress
from fedaudit.core.reconstruction import NOT_RECOVERED, Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.models.batch_norm import batch_norm_layers
from fedaudit.models.build_network import build
from fedaudit.models.class_head import ClassHead, head_inputs
from fedaudit.models.facenet import FaceNet, criterion_of

# Set by hand; what they reach is measured by benchmarks/malicious.py.
FACES = 256
"""Generated faces whose features are measured."""
FISHED = 0.5
"""Least median share in the gradient of a batch of generated faces that one of them must have."""
BATCH, BATCHES = 8, 4
"""Generated faces a batch, and batches, on which the model is tried before it is sent."""
NOTHING_FISHED = (
    "the head stays on the device, so that there was nothing to fish with: the honest model was "
    "sent, and the whole batch attacked"
)
"""What an attack without a head says that it did without."""


@dataclass(frozen=True, kw_only=True)
class Fishing:
    """Send a head under which one image of the batch gives nearly all of the gradient, invert it.

    Fishing for user data (Wen et al., ICML 2022). All rows of the head but one are made equal, so
    that the gradient that reaches the layers below is p_c − y_c times one fixed direction, where c
    is the odd row's class. Then the update is inverted as if the batch were that one image.

    * *Class* fishing makes p_c tiny for every face: only images of class c have a gradient. Several
      images of that class are not told apart.
    * *Feature* fishing makes p_c grow exponentially with a random measurement of the feature map:
      of a batch in which nobody is of class c, the image with the largest measurement wins, by a
      factor of e^(sharpness × the gap to the next, in standard deviations). The paper needs the
      measurement's distribution, too; it is estimated on generated faces. Heads on unit vectors
      have bounded logits, so there the embedding's weights are chosen as well, where the embedding
      is a fully connected layer of one of the package's own networks. An angular margin (ArcFace)
      lets a part of every image through.

    Before anything is sent, the model is tried on batches of generated faces: where no image
    has half of the gradient, `broadcast` refuses. Batch norm in training mode mixes the batch's
    images below the head, which no head undoes: such an update is refused, too.

    One round gives one image. It comes first; the others are returned as even gray, which stands
    for "not recovered". The labels of all are read from the head's gradient. Where the head stays
    on the devices there is nothing to fish with, and `inverter` attacks the whole batch.

    Args:
        mode: "feature" or "class".
        target_class: c; negative numbers count from the last class. Feature fishing wants a class
            that is not in the batch, class fishing one that is.
        sharpness: Logits a standard deviation of the measurement, for feature fishing; > 0.
        threshold: Standard deviations above the mean where p_c reaches that of other classes; too
            low and several images win, too high and the signal drowns in rounding.
        inverter: Registered name of the attack that inverts the image.
        settings: Its settings.
        prior: Generator of the faces on which the head is set up.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1];
            None keeps what the generator says is a face crop.

    Raises:
        AttackError: By `broadcast`: no head can be made out, it has neither bias nor unit rows, or
            no generated face stands out. By the attack: the head alone is trained, training
            diverged, or batch norm trained in training mode.

    Example:
        >>> Fishing(mode="class", target_class=3, inverter="subspace_matching").mode
        'class'
    """

    mode: Literal["feature", "class"] = "feature"
    target_class: int = -1
    sharpness: float = 12.0
    threshold: float = 1.3
    inverter: str = "gan_inversion"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prior: str = "face_gan"
    crop: tuple[float, float, float, float] | None = None

    needs: ClassVar = NEEDS
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.MALICIOUS_SERVER

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "crop", self.crop and tuple(self.crop))
        FaceGenerator(source=self.prior, crop=self.crop)  # refuses a bad crop
        if self.sharpness <= 0:
            raise ValueError("sharpness must be > 0")
        inner: Attack = create("attacks", self.inverter, self.settings)
        if Knowledge.MANIPULATION in inner.needs:
            raise ValueError(f"inverter must be an attack on honest models, not {self.inverter!r}")
        object.__setattr__(self, "needs", type(self).needs | inner.needs)

    def broadcast(
        self, model: ModelSpec, before: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[ModelSpec, Mapping[str, Tensor]]:
        """The honest model with another head; under margin heads, with another embedding too.

        Raises:
            AttackError: See the class.
        """
        network = build(model, before)
        shape = image_shape(model, network)
        head = _head_of(network, shape)
        if head.name not in before:
            return model, before
        faces = FaceGenerator(source=self.prior, crop=self.crop).load(shape, grayscale=False)
        batches = torch.split(faces.draw(FACES, generator), 64)
        with torch.no_grad():
            if isinstance(network, FaceNet):
                maps = torch.cat([network.features(part) for part in batches])
                inputs = network.embedding(maps)
            else:
                inputs = torch.cat([head_inputs(network.eval(), part) for part in batches])
            rows = head.rows(before[head.name])
            fishing = FishingHead(self.mode, self.target_class, self.sharpness, self.threshold)
            if not head.unit:
                replacement = fishing.linear(head, rows, inputs, generator)
            elif isinstance(network, FaceNet) and not isinstance(network.embedding, nn.Identity):
                replacement = fishing.margin_and_embedding(network, maps, generator)
            else:
                replacement = fishing.margin(head, rows, inputs, generator)
        sent = {**before, **{k: v for k, v in replacement.items() if k in before}}
        share = self._largest_share(build(model, sent), torch.cat(batches), len(rows))
        if not share >= FISHED:
            raise AttackError(
                f"fishing would not fish here: of {BATCH} generated faces, the one that stands out "
                f"most has {share:.0%} of the gradient below the head (chance: {1 / BATCH:.0%}). "
                + self._way_out(head)
            )
        return model, sent

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Reconstruction:
        """Invert the image that was fished, as a batch of one."""
        invert: Any = create("attacks", self.inverter, self.settings)
        takes = inspect.signature(invert.__call__).parameters
        more = {"checkpoint": checkpoint} if "checkpoint" in takes else {}
        update, shape = seen.update, seen.image_shape
        head = None if shape is None else _head_of(build(seen.model, seen.before), shape)
        has_head = head is not None and update is not None and head.name in update.tensors
        if not has_head or seen.batch_size is None:
            whole: Reconstruction = invert(seen, generator=generator, progress=progress, **more)
            without = () if has_head else (NOTHING_FISHED,)
            return replace(whole, unused=(*whole.unused, *without))
        assert head is not None
        assert update is not None
        if seen.mode is not None and seen.mode.batch_norm == "train" and seen.batch_size > 1:
            layers = batch_norm_layers(build(seen.model, seen.before))
            if layers:
                raise AttackError(
                    "fishing takes the update for that of one image, and batch norm in training "
                    f"mode ({next(iter(layers))!r}) mixes all images of the batch: use "
                    "subspace_matching, which needs no malicious server there."
                )
        labels = labels_of_fished(head, update, seen.batch_size, self.target_class, self.mode)
        # The head's rows hold every image's label; what it sends down holds one image alone.
        own = {head.name, head.bias}
        below = {k: v for k, v in update.tensors.items() if k not in own}
        if not below:
            raise AttackError(
                "fishing inverts what a head sends down, and this client trains nothing but its "
                "head: use an attack on the head's own gradient, such as gan_inversion."
            )
        scale = torch.stack([v.double().norm() for v in below.values()]).norm().clamp_min(1e-30)
        if not bool(scale.isfinite()):
            raise AttackError(
                "under the fished model this client's training diverged, and its update holds "
                "numbers that are not finite: use fewer local steps or a smaller learning rate."
            )
        alone = replace(
            seen,
            batch_size=1,
            labels=labels[:1],
            shared=(
                replace(
                    update, tensors={k: v / scale.to(v.dtype) for k, v in below.items()}, examples=1
                ),
            ),
        )
        result: Reconstruction = invert(alone, generator=generator, progress=progress, **more)
        others = (seen.batch_size - 1, *result.images.shape[1:])
        gray = result.images.new_full(others, NOT_RECOVERED)
        return replace(result, images=torch.cat([result.images, gray]), labels=labels.cpu())

    def _largest_share(self, network: nn.Module, faces: Tensor, classes: int) -> float:
        """The median over batches of generated `faces` of the largest share in the gradient.

        Measured where it reaches the pixels: images do not share a gradient there, and it has
        passed the same layers.
        """
        network = network.eval()
        odd = self.target_class % classes
        others = [k for k in range(classes) if k != odd] or [odd]
        labels = torch.tensor([others[i % len(others)] for i in range(BATCH)])
        if self.mode == "class":
            labels[0] = odd
        shares = []
        for batch in torch.split(faces[: BATCH * BATCHES], BATCH):
            images = batch.clone().requires_grad_()
            with torch.enable_grad():
                loss = criterion_of(network)(network(images), labels.to(images.device))
            (slopes,) = torch.autograd.grad(loss, images)
            sizes = slopes.double().flatten(1).norm(dim=1)
            shares.append(sizes.max() / sizes.sum())
        return float(torch.stack(shares).median())

    def _way_out(self, head: ClassHead) -> str:
        """What to do where nothing is fished."""
        if head.unit:
            return (
                "The head's scores are cosines, which are bounded, and what a margin makes of each "
                "photo's own class reaches the layers below: use imprint or trap_weights."
            )
        return "Try another sharpness or threshold, imprint or trap_weights."


def _head_of(network: nn.Module, shape: tuple[int, int, int]) -> ClassHead:
    """The head that the server replaces.

    Raises:
        AttackError: There is none that can be made out.
    """
    head = class_head(network, shape)
    if head is None or not head.plain:
        raise AttackError(
            "fishing replaces the head, and which layer gives this network's scores, one a row, "
            "cannot be made out: use a network that ends in a fully connected layer, or another "
            "attack."
        )
    return head
