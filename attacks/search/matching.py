"""The matching engine: how far dummy images are from explaining what a client shared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

from fedaudit.attacks.adaptive.per_example import Gradients, weigh
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import solve_upstream
from fedaudit.attacks.evidence.unshared_layers import PublicModule, public_depth, used_by
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.comparison import free_rows
from fedaudit.attacks.search.distances import DISTANCES, MINDS_LENGTH
from fedaudit.attacks.training.dummy_update import DummyUpdate
from fedaudit.core.choices import check_choices
from fedaudit.core.errors import AttackError, UnknownNameError
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.functional import functional_call
from fedaudit.models.heads import CosineHead
from fedaudit.models.soft_labels import loss_on


@dataclass
class Matching:
    """Compares dummy images with the evidence.

    The dummy gradient needs a loss. There are these, in order of what they presume:

    * **upstream**: the gradient that arrives at the feature maps is known in closed form, or solved
      for by least squares (`first_fully_connected`). No label and no head is needed.
    * **labels**: the client's own criterion with known or inferred labels.
    * **soft**: the label is searched together with the image, as logits (DLG); also where local
      layers are guessed or learned.
    * **free**: nothing after the feature map was shared (a local projector). Each image's upstream
      gradient is searched together with the images: the local layers act through it alone.

    Args:
        evidence: What was gathered.
        use_first_fc: Use what the first fully connected layer gives away.
        distance: A name in `DISTANCES`.
        angle: Take the root of the match. Near a solution squared terms vanish beside any prior on
            images, an angle does not, so that one weight serves fresh and trained networks alike.
        labels: "inferred" in closed form, or "soft".
        layers: Match only parameters whose names start with one of these; () matches all.
        restarts: Independent starts R; free variables have one row for each.
        autocast: Lower precision of the dummy passes; None computes in that of the parameters.
        dummy: Replays several local steps; None takes one gradient at the broadcast weights.
        generator: Start of the free variables.
        surrogate_head: Local layers to match with, `[R, …]` by name; {} solves for what they do.
    """

    evidence: Evidence
    use_first_fc: bool = True
    distance: str = "cosine"
    angle: bool = True
    labels: Literal["inferred", "soft"] = "inferred"
    layers: tuple[str, ...] = ()
    restarts: int = 1
    autocast: torch.dtype | None = None
    dummy: DummyUpdate | None = None
    generator: torch.Generator | None = None
    surrogate_head: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.distance not in DISTANCES:
            raise UnknownNameError("distance", self.distance, DISTANCES)
        evidence = self.evidence
        model, target = evidence.model, evidence.target
        depth = public_depth(model, evidence.private)
        usable = self.use_first_fc and not self.surrogate_head
        self.first_fc = evidence.reachable_first_fc if usable else None
        self.loss = self._loss_kind()
        weights = {name: p for name, p in model.named_parameters() if name in target}
        if self.loss in ("upstream", "free"):
            # What follows the feature map is explained exactly already; only the body is matched.
            if not isinstance(model, FaceNet):
                raise AttackError(
                    "the labels cannot be inferred from what was shared, and this network cannot "
                    'be matched without them: hand them over (labels = …; grant = ["labels"] in a '
                    "study), or use subspace_matching."
                )
            self.public = PublicModule(model, depth)
            weights = used_by(self.public, weights, evidence.shape)
        if self.layers:
            weights = {name: p for name, p in weights.items() if name.startswith(self.layers)}
            if not weights:
                raise AttackError(
                    f"no shared parameter that is matched starts with {' or '.join(self.layers)}: "
                    "choose other layers, or leave the setting out to match them all"
                )
        if self.dummy is not None:
            self.dummy = replace(self.dummy, names=tuple(weights))
        self.fixed = tuple(self.surrogate_head.values())
        self.free: tuple[Tensor, ...] = ()
        if self.loss in ("soft", "free"):
            self.free = self._auxiliary_variables()
        self.names = tuple(weights)
        self.parameters = tuple(weights.values())
        self.target = tuple((evidence.every_round or target)[name] for name in weights)
        if self.dummy is not None:
            self.target = self.dummy.target
        self.scales: tuple[float, ...] = (1.0, 1.0)
        self.evaluations = 0

    def _loss_kind(self) -> Literal["upstream", "labels", "soft", "free"]:
        if self.dummy is not None:
            return "labels"
        if self.surrogate_head:
            return "soft"
        if self.first_fc is not None:
            return "upstream"
        if self.evidence.blind:
            return "free"
        return "soft" if self.labels == "soft" else "labels"

    def _auxiliary_variables(self) -> tuple[Tensor, ...]:
        """A leaf `[R, …]` an image: upstream gradients of unit length, or logits of soft labels."""
        evidence, upstream, starts = self.evidence, self.loss == "free", []
        margin = isinstance(getattr(evidence.model, "head", None), CosineHead)
        if margin and not upstream and not self.surrogate_head:
            raise AttackError(
                "a soft label needs a cross-entropy of plain scores, and this network has a "
                "margin head: use an attack that infers the labels first, such as idlg"
            )
        empty = evidence.like.new_zeros(1, *evidence.shape)
        with torch.no_grad():
            width = (self.public if upstream else evidence.model)(empty).shape[1]
        scale = width**-0.5 if upstream else 1.0
        for _ in range(self.restarts):
            starts.append(torch.randn(evidence.count, width, generator=self.generator) * scale)
        start = torch.stack(starts, dim=1).to(empty)
        return tuple(rows.clone().requires_grad_() for rows in start)

    @property
    def has_features(self) -> bool:
        """Whether each image's feature map is known."""
        return self.first_fc is not None and self.first_fc.maps is not None

    @property
    def mappable(self) -> bool:
        """Whether restarts can share a pass (`vmap`): no local steps replayed, nothing drawn."""
        return self.dummy is None and not self.evidence.photos.transforms

    @property
    def separable(self) -> bool:
        """Whether a batch's gradient is the sum of its images' contributions.

        Not where upstream gradients are those of all images at once, nor where batch norm in
        training mode or several local steps let images see each other.
        """
        maps = self.first_fc is None or self.has_features
        return maps and self.dummy is None and not self.evidence.coupled

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
        """The share of images `which` in the mean gradient, differentiable, and the feature term.

        Where `separable`, shares add up: the gradient of the batch is the sum over any partition.

        Args:
            images: `[n, C, H, W]` in [0, 1], the dummy images at positions `which`.
            which: Their positions in the batch.
            free: What goes with them, from `free_rows`; of the first restart if not given.
            functional: Through `torch.func`, which can be mapped over restarts.
            differentiable: Build the graph of the gradient, for a search by derivatives.
            part: Not looked at: all of a gradient is matched in every step.
        """
        del part
        self.evaluations += len(which)
        if self.dummy is not None:
            return self._replay(self.dummy, images, which, differentiable)
        rows = free_rows(self, which, 0) if free is None else list(free)
        if not self._weighs:
            return self._gradients(images, which, rows, functional, differentiable)

        def single(k: int) -> Gradients:
            own = [*rows[k : k + 1], *rows[len(which) :]] if self.free else rows
            one = images[k : k + 1], [which[k]], own
            return self._gradients(*one, functional, differentiable)[0]

        shares, evidence = [single(k) for k in range(len(which))], self.evidence
        dummy = weigh(shares, evidence.adaptation.each, evidence.count, self.names)
        return dummy, images.new_zeros(())

    def _gradients(
        self,
        images: Tensor,
        which: Sequence[int],
        rows: Sequence[Tensor],
        functional: bool,
        differentiable: bool,
    ) -> tuple[Gradients, Tensor]:
        if functional:
            module = _LossModule(self, self.evidence.model)

            def loss_at(parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
                state = {f"model.{name}": value for name, value in parameters.items()}
                terms: tuple[Tensor, Tensor] = functional_call(module, state, (images, which, rows))
                return terms

            parameters = dict(zip(self.names, self.parameters, strict=True))
            terms = grad(loss_at, has_aux=True)(parameters)
            return tuple(terms[0][name] for name in self.names), terms[1]
        loss, distance = self.loss_of(self.evidence.model, images, which, rows)
        return torch.autograd.grad(loss, self.parameters, create_graph=differentiable), distance

    @property
    def _weighs(self) -> bool:
        """Whether per-example clipping weighs the images; free upstream gradients come weighed."""
        return bool(self.evidence.adaptation.each) and self.loss in ("labels", "soft")

    @property
    def follows(self) -> bool:
        """Whether every transform of single images' gradients is reproduced on dummy gradients."""
        own = {name for name, _ in self.evidence.model.named_parameters()}
        whole = own <= {*self.names, *self.evidence.untrained}
        return self.dummy is None and (whole or not self._weighs)

    def feature_distance(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """1 − cosine to the known map, or 1 − share within the span; `[n]` in [0, 1]."""
        assert self.first_fc is not None
        features = self.first_fc.known_part(features)
        if self.first_fc.maps is not None:
            return 1 - F.cosine_similarity(features, self.first_fc.maps[list(which)])
        inside = (features @ self.first_fc.span.T).square().sum(1)
        return 1 - inside / (features.square().sum(1) + 1e-12)

    def objective(self, dummy: Gradients, feature_distance: Tensor) -> Tensor:
        """The match in units of what generic faces give (`calibrate`); 0 explains everything."""
        gradient_scale, feature_scale = self.scales
        match = self.distance_to(dummy) / gradient_scale
        if self.first_fc is not None:
            match = match + feature_distance / feature_scale
        return (match + 1e-6).sqrt() if self.angle else match

    def distance_to(self, dummy: Gradients) -> Tensor:
        """Between what was sent and what the client would have sent with the gradient `dummy`."""
        distance = DISTANCES[self.distance]
        if self.dummy is not None:
            return distance(dummy, self.target)
        adaptation, length = self.evidence.adaptation, self.distance in MINDS_LENGTH
        return distance(adaptation.sent(dummy, self.names, scaled=length), self.target)

    def distance_in_place(self, face: Tensor, place: int) -> float:
        """How far a face `[1, C, H, W]` is from explaining the update in a place of the batch."""
        dummy, apart = self.gradients(face, [place], differentiable=False)
        with torch.no_grad():
            return float(self.distance_to(dummy) + apart)

    def begin_stage(self) -> None:
        """Bring free upstream gradients to one length.

        A cosine does not mind it, but a step of fixed length hardly turns a vector that has become
        long.
        """
        if self.loss == "free":
            with torch.no_grad():
                length = torch.stack([row.norm(dim=1, keepdim=True) for row in self.free]).mean(0)
                for row in self.free:
                    row.div_(length.clamp_min(1e-12))

    def keep(self, restarts: Sequence[int]) -> None:
        """Drop the free variables of all restarts but these."""
        self.restarts = len(restarts)
        self.free = tuple(
            rows.detach()[list(restarts)].clone().requires_grad_() for rows in self.free
        )
        self.fixed = tuple(rows[list(restarts)] for rows in self.fixed)

    def calibrate(self, images: Tensor) -> None:
        """Set the scale of each term to its median over generic faces, `[n, C, H, W]`.

        In a trained network any two faces have nearly the same features and gradients.
        """
        gradients, features = [], []
        for k, image in enumerate(images):
            which = [k % self.evidence.count]
            dummy, distance = self.gradients(image[None], which, differentiable=False)
            gradients.append(self.distance_to(dummy))
            features.append(distance.detach())
        medians = (float(torch.stack(terms).median()) for terms in (gradients, features))
        self.scales = tuple(max(median, 1e-6) for median in medians)

    def _replay(
        self, dummy: DummyUpdate, images: Tensor, which: Sequence[int], differentiable: bool
    ) -> tuple[Gradients, Tensor]:
        assert self.evidence.labels is not None
        self.evaluations += dummy.passes - len(which)
        labels = self.evidence.labels[list(which)]
        dummy = dummy if len(which) == dummy.count else replace(dummy, count=len(which))
        gradients = dummy.gradients(images, labels, create_graph=differentiable)
        distance = images.new_zeros(())
        if self.first_fc is not None and isinstance(self.evidence.model, FaceNet):
            distance = self.feature_distance(self.evidence.model.features(images), which).mean()
        return gradients, distance

    def loss_of(
        self, model: nn.Module, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What the dummy gradient is the gradient of, and the feature term."""
        with torch.autocast(images.device.type, self.autocast, enabled=self.autocast is not None):
            return self._loss(model, images, which, free)

    def _loss(
        self, model: nn.Module, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        share = len(which) / self.evidence.count
        nothing = images.new_zeros(())
        labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
        if self.loss == "labels":
            truth = self.evidence.labels if self.evidence.soft is None else self.evidence.soft
            assert truth is not None
            labels = truth[list(which)]
        images, labels = self.evidence.photos(images, labels, which)
        if self.loss in ("upstream", "free"):
            features = self.public(images)
            above = torch.stack(list(free)) if free else self._upstream(features, which)
            distance = nothing
            if self.first_fc is not None:
                distance = self.feature_distance(features, which).mean()
            return (features * above).sum(), distance
        if self.loss == "soft":
            soft_labels = torch.stack(list(free[: len(which)])).softmax(1)
            soft_labels = soft_labels.repeat_interleave(len(images) // len(which), 0)
            if not self.fixed:
                return share * F.cross_entropy(model(images), soft_labels), nothing
            parts = dict(zip(self.surrogate_head, free[len(which) :], strict=True))
            own = {name: p for name, p in model.named_parameters() if name not in parts}
            scores = functional_call(model, {**own, **parts}, (images,))
            return share * loss_on(criterion_of(model), scores, soft_labels), nothing
        return share * loss_on(criterion_of(model), model(images), labels), nothing

    def _upstream(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """Gradient of the loss with respect to the feature maps, `[n, F]`, held constant."""
        assert self.first_fc is not None
        if self.first_fc.maps is None or self.first_fc.upstream is None:
            return solve_upstream(self.first_fc, features) @ self.first_fc.weight
        # The sum in G fixes the product of the two only; their lengths are traded here.
        part = self.first_fc.known_part(features.detach())
        length = self.first_fc.maps[list(which)].norm(dim=1) / part.norm(dim=1)
        above: Tensor = self.first_fc.upstream[list(which)] * length[:, None]
        return above @ self.first_fc.weight


class _LossModule(nn.Module):
    """Puts the loss behind a `forward`, which is what `functional_call` can call."""

    def __init__(self, matching: Matching, model: nn.Module) -> None:
        super().__init__()
        self.model, self.matching = model, matching

    def forward(
        self, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.matching.loss_of(self.model, images, which, free)
