"""The matching engine: how far trial images are from explaining what a client shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.entry_layer import solve_arriving
from fedaudit.attacks.evidence import Evidence
from fedaudit.attacks.objectives import cosine_distance
from fedaudit.errors import AttackError
from fedaudit.models.facenet import FaceNet, criterion_of

Gradients = tuple[Tensor, ...]


@dataclass
class Matching:
    """Compares trial images with the evidence.

    The trial gradient needs a loss. There are three, in order of what they presume:

    * **arriving**: the gradient that arrives at the feature maps is known in closed form, or solved
      for by least squares (`entry_layer`). No label and no head is needed, and no curvature of the
      head stands between the images and the match.
    * **labels**: the client's own criterion with known or inferred labels.
    * **free**: nothing after the feature map was shared (a private projector). Each image's
      arriving gradient is a free variable (`free`) that is searched together with the images.

    Args:
        evidence: What was gathered.
        use_entry: Use what the first fully connected layer gives away (off: the published attacks
            that match gradients only).
        generator: Start of the free variable.
    """

    evidence: Evidence
    use_entry: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        model, target = self.evidence.model, self.evidence.target
        entry = self.evidence.entry if self.use_entry else None
        self.entry = entry
        self.free: tuple[Tensor, ...] = ()
        named = {name: p for name, p in model.named_parameters() if name in target}
        if entry is None and self.evidence.labels is None:
            self.free = self._free_variables()
        if entry is not None or self.free:
            # What follows the feature map is explained exactly already; only the body is matched.
            body = {name: p for name, p in named.items() if name.startswith("body.")}
            named = body or named
        self.names = tuple(named)
        self._parameters = tuple(named.values())
        self.target = tuple(target[name] for name in named)
        self.scales = (1.0, 1.0)
        self.evaluations = 0

    @property
    def has_features(self) -> bool:
        """Whether each image's feature map is known."""
        return self.entry is not None and self.entry.maps is not None

    @property
    def separable(self) -> bool:
        """Whether shares add up; not where the arriving gradients are solved for all at once."""
        return self.entry is None or self.has_features

    def gradients(self, images: Tensor, which: Sequence[int]) -> tuple[Gradients, Tensor]:
        """The share of images `which` in the mean gradient, differentiable, and the feature term.

        Where `separable`, shares add up: the gradient of the batch is the sum over any partition.

        Args:
            images: `[n, C, H, W]` in [0, 1], the trial images at positions `which`.
            which: Their positions in the batch.

        Returns:
            A tensor a matched parameter, and the mean feature distance in [0, 1] (0 without entry).
        """
        model, entry = self.evidence.model, self.entry
        self.evaluations += len(which)
        share = len(which) / self.evidence.count
        distance = images.new_zeros(())
        if isinstance(model, FaceNet) and (entry is not None or self.free):
            features = model.features(images)
            loss = (features * self._arriving(features, which)).sum()
            if entry is not None:
                distance = self.feature_distance(features, which).mean()
        else:
            assert self.evidence.labels is not None
            loss = share * criterion_of(model)(model(images), self.evidence.labels[list(which)])
        return torch.autograd.grad(loss, self._parameters, create_graph=True), distance

    def feature_distance(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """1 − cosine to the known map, or 1 − share within the span; `[n]` in [0, 1]."""
        assert self.entry is not None
        if self.entry.maps is not None:
            return 1 - F.cosine_similarity(features, self.entry.maps[list(which)])
        inside = (features @ self.entry.span.T).square().sum(1)
        return 1 - inside / (features.square().sum(1) + 1e-12)

    def objective(self, trial: Gradients, feature_distance: Tensor) -> Tensor:
        """The match in units of what generic faces give (see `calibrate`); 0 explains everything.

        The root makes it an angle: near a solution squared terms vanish beside any prior on images,
        an angle does not, so that one weight of the prior serves fresh and trained networks alike.
        """
        gradient_scale, feature_scale = self.scales
        match = cosine_distance(trial, self.target) / gradient_scale
        if self.entry is not None:
            match = match + feature_distance / feature_scale
        return (match + 1e-6).sqrt()

    def fresh_free(self, which: Sequence[int]) -> list[Tensor]:
        """The free variables of images `which`, brought to a common length, in place.

        Their scale does not matter to a cosine, but a step of fixed length hardly turns a vector
        that an earlier stage made long.
        """
        with torch.no_grad():
            length = sum(float(row.norm()) for row in self.free) / max(1, len(self.free))
            for i in which if self.free else ():
                self.free[i].div_(max(length, 1e-12))
        return [self.free[i] for i in which] if self.free else []

    def calibrate(self, images: Tensor) -> None:
        """Set the scale of each term to its median over generic faces, `[n, C, H, W]`.

        In a trained network any two faces have nearly the same features and gradients; without
        this, a match that says nothing would look like one that says all.
        """
        gradients, features = [], []
        for k, image in enumerate(images):
            which = [k % self.evidence.count]
            trial, distance = self.gradients(image[None], which)
            gradients.append(cosine_distance([t.detach() for t in trial], self.target))
            features.append(distance.detach())
        floor = torch.tensor(1e-6)
        self.scales = (
            float(torch.stack(gradients).median().maximum(floor)),
            float(torch.stack(features).median().maximum(floor)),
        )

    def _arriving(self, features: Tensor, which: Sequence[int]) -> Tensor:
        """Gradient of the loss with respect to the feature maps, `[n, F]`, held constant."""
        if self.free:
            return torch.stack([self.free[i] for i in which])
        assert self.entry is not None
        if self.entry.maps is None or self.entry.arriving is None:
            return solve_arriving(self.entry, features) @ self.entry.weight
        # The sum in G fixes the product of the two only; their lengths are traded here.
        length = self.entry.maps[list(which)].norm(dim=1) / features.detach().norm(dim=1)
        above: Tensor = self.entry.arriving[list(which)] * length[:, None]
        return above @ self.entry.weight

    def _free_variables(self) -> tuple[Tensor, ...]:
        evidence = self.evidence
        if not isinstance(evidence.model, FaceNet):
            raise AttackError(
                "the labels cannot be inferred from what was shared, and only FaceNet networks can "
                'be matched without them: grant = ["labels"], or use a FaceNet.'
            )
        with torch.no_grad():
            width = evidence.model.features(torch.zeros(1, *evidence.shape)).shape[1]
        start = torch.randn(evidence.count, width, generator=self.generator) / width**0.5
        return tuple(row.clone().requires_grad_() for row in start)


def total(parts: Sequence[Gradients]) -> Gradients:
    """Sum of gradient shares, parameter by parameter."""
    return tuple(reduce(torch.add, tensors) for tensors in zip(*parts, strict=True))
