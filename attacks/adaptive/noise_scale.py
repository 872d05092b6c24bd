"""The scale of a defense's noise, parameter by parameter of an update.

Noise that a defense adds has one scale everywhere; noise of rounding goes with the numbers that are
rounded, and with how they are spread: a gradient's few large ones are rounded to coarse steps, of
which the many small ones hardly ever take one. So it is measured on a gradient of images of nobody.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.core.observation import Observation
from fedaudit.defenses.gradient_transforms import Batch, GradientTransform
from fedaudit.models.batch_norm import client_mode
from fedaudit.models.facenet import criterion_of
from fedaudit.models.zoo import build

EVEN = 1.25
"""Ratio of the largest to the smallest noise of large parameters that counts as one scale."""
LARGE = 256
"""Entries from which on a parameter counts for that."""


def is_even(transform: GradientTransform, probe: Batch) -> bool:
    """Whether the noise of `transform` on the gradient `probe` has one scale everywhere."""
    made = transform(probe, torch.Generator().manual_seed(0))
    large = [n for n, value in probe.items() if value.numel() >= LARGE]
    stds = [float((made[n] - probe[n]).square().mean().sqrt()) for n in large]
    return not stds or max(stds) <= EVEN * min(stds)


def noise_by_parameter(
    transforms: Sequence[tuple[GradientTransform, float]],
    even: float,
    seen: Observation,
    sent: Mapping[str, Tensor],
) -> tuple[dict[str, float], float]:
    """Standard deviation an entry of all noise together, by parameter and over all.

    Args:
        transforms: Unbiased; their noise grows with what they act on. With each what it is taken
            to add where it cannot be tried.
        even: Standard deviation of noise that is the same everywhere.
        seen: What the server saw: its network, weights, and number of images.
        sent: The update, whose parameters are as long as what was sent of them, noise and all.

    Returns:
        By parameter, {} where all noise is even; and over all entries.
    """
    if not transforms:
        return {}, even
    gradient = generic_gradient(seen)
    variances = dict.fromkeys(sent, even**2)
    for transform, guess in transforms:
        known = all(name in gradient for name in sent)
        found = _rounding(transform, gradient, sent) if known else dict.fromkeys(sent, guess)
        for name, std in found.items():
            variances[name] += std**2
    total = sum(variance * sent[name].numel() for name, variance in variances.items())
    mean = total / sum(value.numel() for value in sent.values())
    return {name: variance**0.5 for name, variance in variances.items()}, mean**0.5


def _rounding(
    transform: GradientTransform, gradient: Mapping[str, Tensor], sent: Mapping[str, Tensor]
) -> dict[str, float]:
    batch = {}
    for name, value in sent.items():
        length = max(float(gradient[name].norm()), torch.finfo(torch.float32).tiny)
        batch[name] = (gradient[name] * (float(value.norm()) / length)).to(value)[None]
    made = transform(batch, torch.Generator().manual_seed(0))
    found = {}
    for name, value in batch.items():
        noise, signal = (made[name] - value).norm(), value.norm()
        # Rounded, it would be longer than what was sent.
        share = float(signal / (signal.square() + noise.square()).sqrt().clamp_min(1e-20))
        found[name] = float(noise) * share / value.numel() ** 0.5
    return found


def generic_gradient(seen: Observation) -> dict[str, Tensor]:
    """The gradient of smooth images that show nothing; {} where their size is not known."""
    if seen.image_shape is None:
        return {}
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise(seen.batch_size or 1, seen.image_shape, generator)
    model = client_mode(build(seen.model, seen.before), seen.training)
    scores = model(images)
    labels = torch.arange(len(images)) % scores.shape[1]
    named = dict(model.named_parameters())
    loss = criterion_of(model)(scores, labels)
    slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: s for n, s in zip(named, slopes, strict=True) if s is not None}
