"""Contrast and brightness of images that are right otherwise, by the whole gradient.

What layers' inputs span hardly minds how much contrast an image has: a fresh network without biases
gives inputs that are longer, in the same directions, and the variation that keeps a search smooth
takes some contrast away. The gradient minds it: those of weights grow with their inputs, those of
biases do not. Six numbers a photo are fitted, a gain and an offset of each color channel
(Levenberg–Marquardt), to the distance of all layers' gradients at the best common factor, which
clipping and unknown learning rates leave alone.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.span_matching import EXPLAINED, SpanMatching
from fedaudit.attacks.training.trained_parameters import trained_part
from fedaudit.core.observation import Observation
from fedaudit.models.batch_norm import batch_norm_layers

# By a photo of p01 of OpenPeople through a fresh MobileFaceNet: 32.6 → 33.9 dB, 0.931 → 0.943; try
# benchmarks/deployed_networks.py with --people p01 p02 --set attacks.search.color_fit.ROUNDS=0.
STEP = 0.03
"""Half the width of the differences that stand for slopes, since activations are not smooth."""
ROUNDS, TRIALS = 6, 5
"""Steps, and dampings that are tried for each; what a step brings less than `GAIN` ends it."""
DAMPING = 0.1
"""The first, of the slopes' squares; ten times more or less with each trial that fails or holds."""
# By sixteen photos of ORL through the house's trained network, whose norms hide contrast
# (benchmarks/attack_quality.py --models trained --batches 16): without, one of them goes from SSIM
# 0.96 to 0.18. With 1e-2, colors of two photos of a small network do not come back.
FLOOR = 1e-3
"""Least damping of what the gradient hardly minds, as a share of what it minds most."""
GAIN = 0.01
"""Share by which the distance must fall, or the images are left as they were."""
WORSE = 1.1
"""Factor of the distance of spans, which what is right does not raise: 3.6 times, and 1 dB lost,
where a photo of p02 was all noise around the face."""
ENTRIES = 20_000
"""Of each parameter's gradient, by the number of photos, that are compared: evenly chosen, so that
the slopes of large networks fit in memory."""
TINY = 1e-6
"""Length of a parameter's gradient, of the longest, below which it is rounding."""


def fit_colors(
    seen: Observation,
    spans: SpanMatching | None,
    images: Tensor,
    labels: Tensor,
    evaluations: list[int],
) -> Tensor:
    """The images `[N, C, H, W]` with the contrast and brightness that explain the gradient best.

    Left as they are where the update is of several steps or was bent, a label of `[N]` is not known
    (-1), parts of the network are private, batch norm in training mode takes colors away, the
    distance does not fall, or inputs leave the `spans` that they were in.

    How many gradients that took is added to `evaluations`.
    """
    if spans is None or not _applies(seen, spans) or bool((labels < 0).any()):
        return images
    evidence = spans.evidence
    trained = trained_part(evidence.model, evidence.target, evidence.shape)
    target = {name: value for name, value in evidence.target.items() if name in trained}
    known = replace(evidence, labels=labels.to(images.device), target=target)
    matching = Matching(known, use_first_fc=False, angle=False)
    count = len(images)
    parts = [slice(None, None, -(-value.numel() * count // ENTRIES)) for value in matching.target]
    sent = _entries(matching.target, parts)
    length = torch.stack([part.norm() for part in sent])
    units = 1 / (length + TINY * length.max()) / len(sent) ** 0.5
    goal = torch.cat([part * unit for part, unit in zip(sent, units, strict=True)])

    def share(image: Tensor, place: int) -> Tensor:
        """What one image adds to the gradient, in units of each parameter's."""
        gradients = matching.gradients(image, [place], differentiable=False)[0]
        shares = zip(_entries(gradients, parts), units, strict=True)
        return torch.cat([part * unit for part, unit in shares])

    axes = _axes(evidence).to(images)
    shares = [share(images[k : k + 1], k) for k in range(count)]

    def left(own: Tensor) -> Tensor:
        """What a gradient leaves of that which was sent, at the best factor."""
        return (own @ goal).clamp_min(0) / own.square().sum().clamp_min(1e-30) * own - goal

    def try_out(changes: Tensor) -> list[Tensor]:
        pairs = enumerate(changes)
        return [share(_changed(images[k : k + 1], change, axes), k) for k, change in pairs]

    changes = images.new_zeros(count, 2 * len(axes))
    now, damping = left(_sum(shares)), DAMPING
    first = float(now.square().sum())
    for _ in range(ROUNDS):
        before, columns = float(now.square().sum()), []
        for step in STEP * torch.eye(2 * len(axes)).to(images):
            sides = zip(try_out(changes + step), try_out(changes - step), strict=True)
            for own, (up, down) in zip(shares, sides, strict=True):
                rest = _sum(shares) - own
                columns.append((left(rest + up) - left(rest + down)) / (2 * STEP))
        slopes = torch.stack(columns, 1)
        square, slope = slopes.T @ slopes, slopes.T @ now
        for _ in range(TRIALS):
            least = max(FLOOR * float(square.diagonal().max()), 1e-12)
            damped = square + damping * square.diagonal().clamp_min(least).diag()
            move = torch.linalg.solve(damped, slope).view(-1, count).T
            then = try_out(changes - move)
            residual = left(_sum(then))
            if float(residual.square().sum()) < before:
                changes, shares, now, damping = changes - move, then, residual, damping / 10
                break
            damping *= 10
        if float(now.square().sum()) > (1 - GAIN) * before:
            break
    evaluations.append(matching.evaluations)
    pairs = zip(images, changes, strict=True)
    fitted = torch.stack([_changed(image, change, axes) for image, change in pairs])
    falls = float(now.square().sum()) < (1 - GAIN) * first
    return fitted if falls and _stays(spans, images, fitted) else images


def _applies(seen: Observation, spans: SpanMatching) -> bool:
    """Whether the update is one step's gradient, as it was, and shows colors."""
    update, training, adaptation = seen.update, seen.training, spans.evidence.adaptation
    one = training is not None and training.steps == 1 and training.optimizer == "sgd"
    single = update is not None and (update.kind == "gradient" or one)
    bent = adaptation.sparse or adaptation.bent or adaptation.followed or adaptation.images
    hidden = any(layer.training for layer in batch_norm_layers(spans.evidence.model).values())
    return single and not (bent or hidden or spans.evidence.private)


def _stays(spans: SpanMatching, images: Tensor, fitted: Tensor) -> bool:
    """Whether what fitted images send to layers is still in their spans."""
    return spans.distance(fitted) < max(WORSE * spans.distance(images), EXPLAINED)


def _sum(shares: list[Tensor]) -> Tensor:
    return torch.stack(shares).sum(0)


def _entries(gradients: Gradients, parts: list[slice]) -> list[Tensor]:
    return [value.detach().flatten()[part] for value, part in zip(gradients, parts, strict=True)]


def _axes(evidence: Evidence) -> Tensor:
    """Orthonormal directions `[k, C]` of color: brightness first."""
    channels = evidence.shape[0]
    if evidence.grayscale or channels != 3:
        return torch.ones(1, channels)
    return F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]), dim=1)


def _changed(image: Tensor, change: Tensor, axes: Tensor) -> Tensor:
    """The image with gains and offsets `[2k]` along the axes of color."""
    gain, offset = change[: len(axes)] @ axes, change[len(axes) :] @ axes
    changed: Tensor = 0.5 + (1 + gain)[:, None, None] * (image - 0.5) + offset[:, None, None]
    return changed.clamp(0, 1)
