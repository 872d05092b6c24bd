"""What a transform of a defense does to a gradient, found out by trying it on one of no client.

Its direction stays (clipping); entries go missing and the others stay (pruning); every draw is off
in another direction but right on average (noise); all entries are bent alike (signs); every
parameter becomes orthogonal to what it was; or something else, which a search has to follow.

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.core.observation import Observation
from fedaudit.defenses.gradient_transforms import Batch, Draws, GradientTransform
from fedaudit.models.batch_norm import replay_mode
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of

SAME = 1e-6
"""1 − cosine below which a direction counts as kept."""
MISSING = 0.05
"""Share of zeros in a parameter, where it had none, from which on entries count as left out."""
INDEPENDENT = 0.1
"""Cosine of the errors of two draws below which they count as noise that is right on average."""
FAINT = 0.02
"""Cosine to the gradient below which nothing of it is left on average."""
DRAWS = 4
"""Draws whose mean stands for a transform that is random and biased."""
BENT = 0.5
"""Cosine to the gradient from which a flat transform, which bends directions, is seen through."""
RIGHT = 1e-4
"""Cosine to a parameter's gradient, and relative difference of lengths, that count as none."""
Kind = Literal["kept", "sparse", "noise", "bent", "orthogonalized", "followed", "lost"]
EVEN = 1.25
"""Ratio of the largest to the smallest noise of large parameters that counts as one scale."""
LARGE = 256
"""Entries from which on a parameter counts for that."""


def behavior(transform: GradientTransform, probe: Batch) -> tuple[Kind, float]:
    """What a transform does to a gradient without zeros, and the deviation of its noise."""
    one, two = (flatten(transform(probe, drawing(seed))) for seed in (0, 1))
    plain = flatten(probe)
    random = not torch.equal(one, two)
    if not random and apart(one, plain) < SAME:
        return "kept", 0.0
    if random and _is_orthogonal(transform(probe, drawing(0)), probe):
        return "orthogonalized", 0.0
    left_out_entries = one == 0
    left_out = any(
        float((v == 0).float().mean()) > MISSING for v in transform(probe, drawing(0)).values()
    )
    if left_out and apart(one, plain * ~left_out_entries) < SAME:
        return "sparse", 0.0
    if not random:
        flat = _is_flat(transform, probe)
        return ("bent" if flat and 1 - apart(one, plain) > BENT else "followed"), 0.0
    return _noise_of(transform, probe, one, two)


def drops_columns(transform: GradientTransform, probe: Batch) -> bool:
    """Whether the entries that go missing are whole columns of weights, as Soteria's are."""
    for name, output in transform(probe, drawing(0)).items():
        missing = (output == 0) & (probe[name] != 0)
        if missing.dim() < 3 and bool(missing.any()):  # of a bias, which has no columns
            return False
        if missing.dim() >= 3 and bool((missing.any(1) & ~missing.all(1)).any()):
            return False
    return True


def _noise_of(
    transform: GradientTransform, probe: Batch, one: Tensor, two: Tensor
) -> tuple[Kind, float]:
    """What a random transform is, of two of its draws: noise, if their errors differ."""
    plain = flatten(probe)
    share = float((one @ plain + two @ plain) / (2 * plain @ plain))
    errors = [one - share * plain, two - share * plain]
    cosine = float((errors[0] @ errors[1]) / (errors[0].norm() * errors[1].norm() + 1e-20))
    if abs(cosine) >= INDEPENDENT:
        return "followed", 0.0
    alike = float((one @ plain) / (one.norm() * plain.norm() + 1e-20))
    # Noise drowns any gradient in the end; a transform that turns it away by design is none.
    if share < 0.5 and abs(alike) < FAINT:
        return "lost", 0.0
    std, signal = (float(x.square().mean().sqrt()) for x in (errors[0], share * plain))
    half = flatten(transform({n: v / 2 for n, v in probe.items()}, drawing(0))) - share * plain / 2
    if float(half.square().mean().sqrt()) < 0.75 * std:
        # It grows with the gradient; the probe is as long as what was sent, noise and all.
        std *= signal / (signal**2 + std**2) ** 0.5
    return "noise", std


def _is_orthogonal(output: Batch, probe: Batch) -> bool:
    """Whether every parameter of more than one number is at right angles and as long as it was."""
    pairs = [(output[n].flatten().double(), v.flatten().double()) for n, v in probe.items()]
    pairs = [(a, b) for a, b in pairs if len(b) > 1]
    return bool(pairs) and all(
        abs(1 - apart(a, b)) < RIGHT and abs(float(a.norm() / b.norm()) - 1) < RIGHT
        for a, b in pairs
    )


def followed(transform: GradientTransform, probe: Batch) -> GradientTransform:
    """The transform as a search can follow it: its mean over draws, with a derivative.

    Where the transform is flat (signs, rounding) the derivative is that of the identity:
    straight-through (Bengio et al. 2013, arXiv 1308.3432).
    """
    one, two = (flatten(transform(probe, drawing(seed))) for seed in (0, 1))
    draws = 1 if torch.equal(one, two) else DRAWS
    source: object = transform  # a function may have more than it is called by
    if isinstance(source, Draws):
        return partial(_expectation, source)
    flat = _is_flat(transform, probe)

    def smooth(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        leaves = {n: v.detach() for n, v in batch.items()} if flat else batch
        results = [transform(leaves, drawing(seed)) for seed in range(draws)]
        mean = {n: torch.stack([one[n] for one in results]).mean(0) for n in batch}
        if not flat:
            return mean
        return {n: v + (mean[n] - v).detach() for n, v in batch.items()}

    return smooth


def _expectation(transform: Draws, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    del generator
    return transform.expected(batch)


def _is_flat(transform: GradientTransform, probe: Batch) -> bool:
    leaves = {n: v.clone().requires_grad_() for n, v in probe.items()}
    with torch.enable_grad():
        total = torch.stack(
            [(v * probe[n]).sum() for n, v in transform(leaves, drawing(0)).items()]
        )
        if not total.requires_grad:
            return True
        slopes = torch.autograd.grad(total.sum(), list(leaves.values()), allow_unused=True)
    return all(slope is None or not bool(slope.any()) for slope in slopes)


def drawing(seed: int) -> torch.Generator:
    """The generator that transforms are tried with."""
    return torch.Generator().manual_seed(seed)


def flatten(batch: Batch) -> Tensor:
    """All of it, `[P]`, in double precision."""
    return torch.cat([value.flatten() for value in batch.values()]).double()


def apart(one: Tensor, two: Tensor) -> float:
    """1 − cosine; 1 where one of the two is zero."""
    length = float(one.norm() * two.norm())
    return 1 - float(one @ two) / length if length else 1.0


def is_even(transform: GradientTransform, probe: Batch) -> bool:
    """Whether the noise of `transform` on the gradient `probe` has one scale everywhere."""
    noisy = transform(probe, torch.Generator().manual_seed(0))
    large = [n for n, value in probe.items() if value.numel() >= LARGE]
    stds = [float((noisy[n] - probe[n]).square().mean().sqrt()) for n in large]
    return not stds or max(stds) <= EVEN * min(stds)


def noise_by_parameter(
    transforms: Sequence[tuple[GradientTransform, float]],
    even: float,
    seen: Observation,
    sent: Mapping[str, Tensor],
) -> tuple[dict[str, float], float]:
    """Deviation an entry of all noise together: by parameter ({} where it is even), and over all.

    Noise that a defense adds has one scale everywhere, `even`; noise of rounding goes with the
    numbers that are rounded, and with how they are spread: a gradient's few large ones are rounded
    to coarse steps, of which the many small ones hardly ever take one. So it is measured on a
    gradient of images of nobody. With each rounding transform comes what it is taken to add where
    it cannot be tried.
    """
    if not transforms:
        return {}, even
    gradient = generic_gradient(seen)
    variances = dict.fromkeys(sent, even**2)
    for transform, guess in transforms:
        is_complete = all(name in gradient for name in sent)
        stds = _rounding(transform, gradient, sent) if is_complete else dict.fromkeys(sent, guess)
        for name, std in stds.items():
            variances[name] += std**2
    total = sum(variance * sent[name].numel() for name, variance in variances.items())
    mean = total / sum(value.numel() for value in sent.values())
    return {name: variance**0.5 for name, variance in variances.items()}, mean**0.5


def _rounding(
    transform: GradientTransform, gradient: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, float]:
    batch = {}
    for name, value in tensors.items():
        length = max(float(gradient[name].norm()), torch.finfo(torch.float32).tiny)
        batch[name] = (gradient[name] * (float(value.norm()) / length)).to(value)[None]
    output = transform(batch, torch.Generator().manual_seed(0))
    stds = {}
    for name, value in batch.items():
        noise, signal = (output[name] - value).norm(), value.norm()
        # Rounded, it would be longer than what was sent.
        share = float(signal / (signal.square() + noise.square()).sqrt().clamp_min(1e-20))
        stds[name] = float(noise) * share / value.numel() ** 0.5
    return stds


def generic_gradient(seen: Observation) -> dict[str, Tensor]:
    """The gradient of smooth images that show nothing; {} where their size is not known."""
    if seen.image_shape is None:
        return {}
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise(seen.batch_size or 1, seen.image_shape, generator)
    model = replay_mode(build(seen.model, seen.before), seen.mode)
    scores = model(images)
    labels = torch.arange(len(images)) % scores.shape[1]
    parameters = dict(model.named_parameters())
    loss = criterion_of(model)(scores, labels)
    slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: s for n, s in zip(parameters, slopes, strict=True) if s is not None}
