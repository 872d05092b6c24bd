"""The matching engine: how far trial images are from explaining what a client shared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from fedaudit.attacks.evidence import Evidence
from fedaudit.attacks.local_steps.replay_trial import ReplayTrial
from fedaudit.attacks.maps.entry_layer import solve_arriving
from fedaudit.attacks.objectives import DISTANCES
from fedaudit.errors import AttackError, UnknownNameError
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.heads import CosineHead

Gradients = tuple[Tensor, ...]


@dataclass
class Matching:
    """Compares trial images with the evidence.

    The trial gradient needs a loss. There are four, in order of what they presume:

    * **arriving**: the gradient that arrives at the feature maps is known in closed form, or solved
      for by least squares (`entry_layer`). No label and no head is needed, and no curvature of the
      head stands between the images and the match.
    * **labels**: the client's own criterion with known or inferred labels.
    * **soft**: the label is searched together with the image, as logits (DLG).
    * **free**: nothing after the feature map was shared (a private projector). Each image's
      arriving gradient is a free variable that is searched together with the images.

    Args:
        evidence: What was gathered.
        use_entry: Use what the first fully connected layer gives away (off: the published attacks
            that match gradients only).
        distance: A name in `DISTANCES`.
        angle: Take the root of the match. Near a solution squared terms vanish beside any prior on
            images, an angle does not, so that one weight of the prior serves fresh and trained
            networks alike.
        labels: "inferred" in closed form, or "soft".
        layers: Match only parameters whose names start with one of these; () matches all that were
            shared. The weight gradients of the others are never formed.
        restarts: Independent starts R; free variables have one row for each.
        autocast: Lower precision of the trial passes; None computes in that of the parameters.
        trial: Replays several local steps; None takes one gradient at the broadcast weights.
        generator: Start of the free variables.
    """

    evidence: Evidence
    use_entry: bool = True
    distance: str = "cosine"
    angle: bool = True
    labels: Literal["inferred", "soft"] = "inferred"
    layers: tuple[str, ...] = ()
    restarts: int = 1
    autocast: torch.dtype | None = None
    trial: ReplayTrial | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise UnknownNameError("distance", self.distance, DISTANCES)
        model, target = self.evidence.model, self.evidence.target
        entry = self.evidence.entry if self.use_entry else None
        self.entry = entry
        self.loss: Literal["arriving", "labels", "soft", "free"] = "labels"
        named = {name: p for name, p in model.named_parameters() if name in target}
        if entry is not None:
            self.loss = "arriving"
        elif self.evidence.labels is None:
            self.loss = "free"
        elif self.labels == "soft":
            self.loss = "soft"
        if self.loss in ("arriving", "free"):
            # What follows the feature map is explained exactly already; only the body is matched.
            body = {name: p for name, p in named.items() if name.startswith("body.")}
            named = body or named
        if self.layers:
            named = {name: p for name, p in named.items() if name.startswith(self.layers)}
            if not named:
                raise AttackError(
                    f"no shared parameter that is matched starts with {' or '.join(self.layers)}: "
                    "choose other layers, or leave the setting out to match them all"
                )
        if self.trial is not None:
            self.loss = "labels"
            self.trial = replace(self.trial, names=tuple(named))
        self.free = self._free_variables()
        self.names = tuple(named)
        self.parameters = tuple(named.values())
        self.target = tuple(target[name] for name in named)
        if self.trial is not None:
            self.target = self.trial.target
        self.scales = (1.0, 1.0)
        self.evaluations = 0

    @property
    def has_features(self) -> bool:
        """Whether each image's feature map is known."""
        return self.entry is not None and self.entry.maps is not None

    @property
    def separable(self) -> bool:
        """Whether shares add up.

        Not where the arriving gradients are solved for all at once, nor where batch norm in
        training mode or several local steps let images see each other.
        """
        known = self.entry is None or self.has_features
        return known and self.trial is None and not self.evidence.coupled

    def gradients(
        self,
        images: Tensor,
        which: Sequence[int],
        free: Sequence[Tensor] | None = None,
        *,
        functional: bool = False,
        differentiable: bool = True,
    ) -> tuple[Gradients, Tensor]:
        """The share of images `which` in the mean gradient, differentiable, and the feature term.

        Where `separable`, shares add up: the gradient of the batch is the sum over any partition.

        Args:
            images: `[n, C, H, W]` in [0, 1], the trial images at positions `which`.
            which: Their positions in the batch.
            free: Their free variables, a row each; the first restart's if not given.
            functional: Through `torch.func`, which can be mapped over restarts.
            differentiable: Build the graph of the gradient, for a search by derivatives.

        Returns:
            A tensor a matched parameter, and the mean feature distance in [0, 1] (0 without entry).
        """
        self.evaluations += len(which)
        if self.trial is not None:
            return self._replayed(self.trial, images, which, differentiable)
        rows = [self.free[i][0] for i in which] if free is None and self.free else list(free or [])
        if functional:
            found = grad(self._functional_loss, has_aux=True)(
                dict(zip(self.names, self.parameters, strict=True)), images, which, rows
            )
            return tuple(found[0][name] for name in self.names), found[1]
        loss, distance = self.loss_of(self.evidence.model, images, which, rows)
        return torch.autograd.grad(loss, self.parameters, create_graph=differentiable), distance

    def feature_distance(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """1 − cosine to the known map, or 1 − share within the span; `[n]` in [0, 1]."""
        assert self.entry is not None
        if self.entry.maps is not None:
            return 1 - F.cosine_similarity(features, self.entry.maps[list(which)])
        inside = (features @ self.entry.span.T).square().sum(1)
        return 1 - inside / (features.square().sum(1) + 1e-12)

    def objective(self, trial: Gradients, feature_distance: Tensor) -> Tensor:
        """The match in units of what generic faces give (`calibrate`); 0 explains everything."""
        gradient_scale, feature_scale = self.scales
        match = DISTANCES[self.distance](trial, self.target) / gradient_scale
        if self.entry is not None:
            match = match + feature_distance / feature_scale
        return (match + 1e-6).sqrt() if self.angle else match

    def fresh_free(self, which: Sequence[int]) -> list[Tensor]:
        """The free variables of images `which`; arriving gradients are brought to one length.

        Their scale does not matter to a cosine, but a step of fixed length hardly turns a vector
        that an earlier stage made long.
        """
        if self.loss == "free":
            with torch.no_grad():
                length = torch.stack([row.norm(dim=1, keepdim=True) for row in self.free]).mean(0)
                for i in which:
                    self.free[i].div_(length.clamp_min(1e-12))
        return [self.free[i] for i in which] if self.free else []

    def keep(self, restarts: Sequence[int]) -> None:
        """Drop the free variables of all restarts but these."""
        self.restarts = len(restarts)
        self.free = tuple(
            rows.detach()[list(restarts)].clone().requires_grad_() for rows in self.free
        )

    def calibrate(self, images: Tensor) -> None:
        """Set the scale of each term to its median over generic faces, `[n, C, H, W]`.

        In a trained network any two faces have nearly the same features and gradients; without
        this, a match that says nothing would look like one that says all.
        """
        gradients, features = [], []
        for k, image in enumerate(images):
            which = [k % self.evidence.count]
            trial, distance = self.gradients(image[None], which, differentiable=False)
            gradients.append(DISTANCES[self.distance](trial, self.target))
            features.append(distance.detach())
        self.scales = (
            max(float(torch.stack(gradients).median()), 1e-6),
            max(float(torch.stack(features).median()), 1e-6),
        )

    def _replayed(
        self, trial: ReplayTrial, images: Tensor, which: Sequence[int], differentiable: bool
    ) -> tuple[Gradients, Tensor]:
        assert self.evidence.labels is not None
        self.evaluations += trial.passes - len(which)
        labels = self.evidence.labels[list(which)]
        if len(which) < trial.count:
            trial = replace(trial, count=len(which))
        found = trial.gradients(images, labels, create_graph=differentiable)
        distance = images.new_zeros(())
        if self.entry is not None and isinstance(self.evidence.model, FaceNet):
            distance = self.feature_distance(self.evidence.model.features(images), which).mean()
        return found, distance

    def loss_of(
        self, model: nn.Module, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What the trial gradient is the gradient of, and the feature term."""
        with torch.autocast(images.device.type, self.autocast, enabled=self.autocast is not None):
            return self._loss(model, images, which, free)

    def _loss(
        self, model: nn.Module, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        share = len(which) / self.evidence.count
        nothing = images.new_zeros(())
        if self.loss in ("arriving", "free"):
            assert isinstance(model, FaceNet)
            features = model.features(images)
            above = torch.stack(list(free)) if free else self._arriving(features, which)
            distance = nothing
            if self.entry is not None:
                distance = self.feature_distance(features, which).mean()
            return (features * above).sum(), distance
        scores = model(images)
        if self.loss == "soft":
            wanted = torch.stack(list(free)).softmax(1)
            return share * F.cross_entropy(scores, wanted), nothing
        assert self.evidence.labels is not None
        labels = self.evidence.labels[list(which)]
        return share * criterion_of(model)(scores, labels), nothing

    def _functional_loss(
        self,
        parameters: dict[str, Tensor],
        images: Tensor,
        which: Sequence[int],
        free: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        asked = _Asked(self, self.evidence.model)
        named = {f"model.{name}": value for name, value in parameters.items()}
        found: tuple[Tensor, Tensor] = functional_call(asked, named, (images, which, free))
        return found

    def _arriving(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """Gradient of the loss with respect to the feature maps, `[n, F]`, held constant."""
        assert self.entry is not None
        if self.entry.maps is None or self.entry.arriving is None:
            return solve_arriving(self.entry, features) @ self.entry.weight
        # The sum in G fixes the product of the two only; their lengths are traded here.
        length = self.entry.maps[list(which)].norm(dim=1) / features.detach().norm(dim=1)
        above: Tensor = self.entry.arriving[list(which)] * length[:, None]
        return above @ self.entry.weight

    def _free_variables(self) -> tuple[Tensor, ...]:
        """A leaf `[R, …]` an image: arriving gradients of unit length, or logits of soft labels."""
        if self.loss not in ("soft", "free"):
            return ()
        evidence, model = self.evidence, self.evidence.model
        empty = next(iter(evidence.target.values())).new_zeros(1, *evidence.shape)
        if self.loss == "free":
            if not isinstance(model, FaceNet):
                raise AttackError(
                    "the labels cannot be inferred from what was shared, and only FaceNet networks "
                    'can be matched without them: grant = ["labels"], or use a FaceNet.'
                )
            with torch.no_grad():
                width = model.features(empty).shape[1]
            scale = width**-0.5
        else:
            if isinstance(getattr(model, "head", None), CosineHead):
                raise AttackError(
                    "a soft label needs a cross-entropy of plain scores, and this network has a "
                    "margin head: use an attack that infers the labels first, such as idlg"
                )
            with torch.no_grad():
                width = model(empty).shape[1]
            scale = 1.0
        draws = [
            torch.randn(evidence.count, width, generator=self.generator) * scale
            for _ in range(self.restarts)
        ]
        start = torch.stack(draws, dim=1).to(empty)
        return tuple(rows.clone().requires_grad_() for rows in start)


class _Asked(nn.Module):
    """Puts the loss behind a `forward`, which is what `functional_call` can call."""

    def __init__(self, matching: Matching, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.matching = matching

    def forward(
        self, images: Tensor, which: Sequence[int], free: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.matching.loss_of(self.model, images, which, free)


def total(parts: Sequence[Gradients]) -> Gradients:
    """Sum of gradient shares, parameter by parameter."""
    return tuple(reduce(torch.add, tensors) for tensors in zip(*parts, strict=True))
