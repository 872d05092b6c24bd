"""Samples that look like nobody's photo and whose gradients do train beside each photo."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.defenses.client_network import image_gradients
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.defenses.mixing import partners, pool_of
from fedaudit.defenses.on_photos import on_photos
from fedaudit.defenses.settings import public_settings, require
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.soft_labels import probabilities

TOGETHER = 16
"""Samples that are searched at a time: each holds a gradient of the whole network in memory."""
CHANGES = (3 / 8, 5 / 8, 7 / 8)
"""Where in the search the step length falls to a tenth, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class ConcealedSamples:
    """Train on each photo together with samples that conceal it.

    DCS (Wu et al., AAAI 2024, arXiv 2209.05724). A concealed sample starts as a blend of another
    photo of the client with the photo that it conceals, and its label is the same blend. Adam then
    lowers 1 − cos(its gradient, the photo's) + exp(−`distance`·d) + `scores`·s: d is the root mean
    square distance of the two images, s the relative distance of the network's scores. The update
    is the mean over photos and samples. Every photo is concealed, in each round anew, at the
    weights that the client received. The paper projects the gradient where it would point away
    from the photos' own; here the photo stands in such a sample's place, which then protects
    nothing. A smaller `blend` brings the cosine nearer to 1, and the sample's start nearer to the
    photo. Needs labels for every photo, and refuses DP-SGD beside it, whose unit is one image.
    Guarantee: none, it is a heuristic. An attacker who knows it reads off the labels which image is
    the photo, and takes the sum apart by them; we know of no published attack on it.

    Args:
        each: Samples a photo, ≥ 1.
        iterations: Steps of the search, ≥ 1, each about four passes of a sample: the whole cost of
            the defense. The authors' scripts take 1000.
        lr: Adam's learning rate, in units of images in [0, 1]; > 0. The authors' 0.1 is of images
            of standard deviation 1, for which ours stand at about 0.25.
        distance: Weight of d; > 0. The authors' 0.01 is of the sum over 32 × 32 × 3 such values.
        scores: Weight of s; ≥ 0.
        blend: Share of the other photo in start and label, in (0, 1]; the authors take 0.7 for
            faces.
    """

    each: int = 1
    iterations: int = 50
    lr: float = 0.025
    distance: float = 9.0
    scores: float = 0.1
    blend: float = 0.7

    def __post_init__(self) -> None:
        for name in ("each", "iterations"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("lr", "distance"):
            require(getattr(self, name) > 0, f"{name} must be > 0", getattr(self, name))
        require(self.scores >= 0, "scores must be ≥ 0", self.scores)
        require(0 < self.blend <= 1, "blend must lie in (0, 1]", self.blend)

    @property
    def copies(self) -> int:
        """Images in place of each photo, itself among them."""
        return 1 + self.each

    def __call__(self, step: ClientStep) -> ClientStep:
        """Put concealed samples beside the photos that the step trains on."""

        def guarded(task: ClientTask) -> ClientReturn:
            if task.unlabelled is not None:
                raise ConfigError(
                    "concealed_samples imitates the gradient of a labelled photo, and this method "
                    "trains on photos without labels, too. Use oasis or ats with it."
                )
            # The very network that trains: what the server never sends is drawn here, and kept.
            seed = int(torch.randint(2**62, (1,), generator=task.generator))
            model = build(task.model, {**task.before, **task.kept}, seed=seed).eval()
            own = {n: p for n, p in parameters_of(model).items() if n not in task.before}
            with_network = replace(task, kept={**own, **task.kept})
            transform = self._beside(model, task)
            augment = on_photos(step, transform, copies=self.copies, several="concealed_samples")
            return augment(with_network)

        return guarded

    keeps_claims = True
    facts = public_settings("concealed_samples")

    def labels_beside(self, own: Tensor, others: Tensor) -> Tensor:
        """Class probabilities `[copies, K]` of a photo and its samples, as `Conceals` says."""
        return torch.cat([own[None], self._blend(own, others)])

    def _blend(self, own: Tensor, other: Tensor) -> Tensor:
        return self.blend * other + (1 - self.blend) * own

    def _beside(self, model: nn.Module, task: ClientTask) -> ImageTransform:
        """Each photo, then its samples; starts are drawn from all photos of the client."""

        def transform(
            images: Tensor, labels: Tensor, generator: torch.Generator
        ) -> tuple[Tensor, Tensor]:
            pool, theirs = pool_of(task)
            soft = probabilities(theirs, task.model.arguments.get("classes"))
            samples, marks = [images], [soft[: len(images)]]
            for _ in range(self.each):
                other, target = _others(pool, soft, len(images), generator)
                start = self._blend(images, other)
                mark = self._blend(soft[: len(images)], target)
                parts = [
                    self.search(model, *part)
                    for part in zip(
                        *(torch.split(t, TOGETHER) for t in (images, marks[0], start, mark)),
                        strict=True,
                    )
                ]
                concealing, cosines = (torch.cat(p) for p in zip(*parts, strict=True))
                away = cosines <= 0
                concealing[away], mark[away] = images[away], marks[0][away]
                samples.append(concealing)
                marks.append(mark)
            return torch.stack(samples, 1).flatten(0, 1), torch.stack(marks, 1).flatten(0, 1)

        return transform

    def search(
        self, model: nn.Module, photos: Tensor, labels: Tensor, start: Tensor, marks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Samples that conceal photos, and the cosines of their gradients to the photos'.

        Args:
            model: In evaluation mode.
            photos: `[n, C, H, W]` in [0, 1].
            labels: `[n, k]` class probabilities of the photos.
            start: `[n, C, H, W]` first samples.
            marks: `[n, k]` class probabilities of the samples.

        Returns:
            `[n, C, H, W]` in [0, 1], and `[n]`: where the objective was lowest.
        """
        targets, outputs = (t.detach() for t in image_gradients(model, photos, labels))
        if not bool((targets.norm(dim=1) > 0).all()):
            raise ConfigError(
                "concealed_samples imitates the gradient of one photo, and with this network's "
                "loss a photo alone has none. Use oasis or ats with it."
            )
        samples = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([samples], self.lr, foreach=False)
        milestones = [round(c * self.iterations) for c in CHANGES]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        best = torch.full((len(photos),), float("inf"))
        best_samples, cosines = start.clone(), torch.zeros(len(photos))
        for _ in range(self.iterations):
            gradients, scores = image_gradients(model, samples, marks)
            cosine = torch.cosine_similarity(gradients, targets, dim=1)
            apart = (samples - photos).square().mean((1, 2, 3)).add(1e-12).sqrt()
            unlike = (scores - outputs).norm(dim=1) / outputs.norm(dim=1).clamp_min(1e-12)
            objective = 1 - cosine + (-self.distance * apart).exp() + self.scores * unlike
            better = objective.detach() < best
            best = torch.where(better, objective.detach(), best)
            cosines = torch.where(better, cosine.detach(), cosines)
            mask = better[:, None, None, None]
            best_samples = torch.where(mask, samples.detach(), best_samples)
            (samples.grad,) = torch.autograd.grad(objective.sum(), samples)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                samples.clamp_(0, 1)
        return best_samples, cosines


def _others(
    pool: Tensor, soft: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For each of the first `count` photos another one and its label; noise for the only photo."""
    if len(pool) == 1:
        return torch.rand(pool.shape, generator=generator).to(pool), soft
    partner = partners(count, len(pool), 2, generator)[:, 1]
    return pool[partner], soft[partner]
