"""Distances between gradients. Pure functions: (dummy, target), a tensor a parameter each → scalar.

Parameters are those that the client shared and the attack matches, in one order on both sides.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]

TINY = 1e-12
# Set by hand; what it reaches is measured by benchmarks/adaptive_attacks.py.
LENGTHS = 0.1
"""Difference of the logarithms of two faces' gradients in one parameter, as it usually is."""


def l2_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Sum of squared differences (Zhu et al. 2019, eq. 3). Minds the scale: clipping breaks it."""
    return torch.stack([(a - b).square().sum() for a, b in _pairs(dummy, target)]).sum()


def scaled_l2_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Squared error at the best common factor c: min ‖c·dummy − target‖² / ‖target‖².

    The sine of the angle, squared, so in [0, 1]: what L2 matching becomes when it adapts to
    clipping, whose factor it estimates in closed form. Exact near 0, where 1 − cosine is rounding.
    """
    dot, one, two = _products(dummy, target)
    # c is where the error is least, so no derivative passes through it.
    factor = (dot.clamp_min(0) / (one + TINY)).detach()
    residual = torch.stack([(factor * a - b).square().sum() for a, b in _pairs(dummy, target)])
    return residual.sum() / (two + TINY)


def cosine_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1 − cosine over all parameters together, in [0, 2] (Geiping et al. 2020, eq. 4).

    The value is half the squared distance of the unit vectors: the difference of 1 and a cosine is
    rounding from 1e-7 on, where smooth networks have most of what they tell of the pixels. The
    derivative does not suffer from that, and passes through the cosine, which is cheaper.
    """
    dot, one, two = _products(dummy, target)
    approximation = 1 - dot / (one.sqrt() * two.sqrt() + TINY)
    with torch.no_grad():
        length, size = one.sqrt() + TINY, two.sqrt() + TINY
        pairs = _pairs(dummy, target)
        exact = torch.stack([(a / length - b / size).square().sum() for a, b in pairs]).sum() / 2
    return exact + (approximation - approximation.detach())


def layerwise_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean over parameters of their relative squared error, at the best common factor.

    Every layer counts the same, so that the early ones, which hold the pixels, are heard beside a
    head whose gradient is a thousand times larger.
    """
    weights = [1 / (b.square().sum() + TINY) for b in target]
    rows = list(zip(dummy, target, weights, strict=True))
    dot = torch.stack([(a * b).sum() * w for a, b, w in rows]).sum()
    one = torch.stack([a.square().sum() * w for a, _, w in rows]).sum()
    factor = (dot.clamp_min(0) / (one + TINY)).detach()
    return torch.stack([(factor * a - b).square().sum() * w for a, b, w in rows]).mean()


def masked_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1 − cosine over the entries that were sent: zeros of the target count as not sent.

    For pruned updates; what is zero in the target says nothing about the client's gradient there.
    """
    return cosine_distance(
        [a * (b != 0) for a, b in _pairs(dummy, target)], [b for _, b in _pairs(dummy, target)]
    )


def sign_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """How far the dummy's signs disagree with the target's, in [0, 1]; smooth.

    tanh of the entry, in units of its layer's root mean square, stands for the sign.
    """
    wrong, count = [], 0
    for a, b in _pairs(dummy, target):
        unit = a / (a.square().mean().sqrt() + TINY)
        wrong.append(((torch.tanh(3 * unit) - b.sign()).abs() * (b != 0)).sum() / 2)
        count += a.numel()
    return torch.stack(wrong).sum() / count


def signs_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1 − cosine to a target of signs, plus how far smooth signs of the dummy disagree with it.

    Signs keep most of a gradient's direction (cosine 0.8 for Gaussian entries: Bussgang 1952).
    Signs of the dummy alone lead nowhere: their slope is nearly everywhere zero or too steep.
    """
    pairs = _pairs(dummy, target)
    smooth = [torch.tanh(3 * a / (a.square().mean().sqrt() + TINY)) for a, _ in pairs]
    return cosine_distance(dummy, target) + 0.5 * cosine_distance(smooth, target)


def orthogonalized_distance(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """What is wrong where each parameter was sent at right angles to its gradient, and as long.

    Two kinds of equation a parameter: the dummy is orthogonal to what was sent, in every round `[R,
    …]`; and it is as long, up to one factor for all. Cosines count in units of those of random
    directions, lengths in those of two faces; the mean over all equations is about 1 for a face
    that has nothing to do with the update, and 0 for the right one.
    """
    angles, lengths, rounds = [], [], 1
    for a, b in _pairs(dummy, target):
        if a.numel() < 2:
            continue  # nothing is at right angles to a single number
        rows = b.reshape(-1, a.numel())
        rounds = len(rows)
        size = (a.square().sum() + TINY**2).sqrt()
        cosines = (rows @ a.flatten()) / (rows.norm(dim=1) * size + TINY**2)
        angles.append(cosines.square().sum() * a.numel())
        lengths.append(size.log() - (rows[0].norm() + TINY).log())
    ratio = torch.stack(lengths)
    apart = ((ratio - ratio.mean()) / LENGTHS).square()
    return (torch.stack(angles).sum() + apart.sum()) / (len(ratio) * (rounds + 1))


DISTANCES: Mapping[str, Distance] = {
    "cosine": cosine_distance,
    "l2": l2_distance,
    "scaled_l2": scaled_l2_distance,
    "layerwise": layerwise_distance,
    "masked": masked_distance,
    "sign": sign_distance,
    "signs": signs_distance,
    "orthogonalized": orthogonalized_distance,
}
"""By the name that an attack's `distance` setting gives."""
MINDS_LENGTH = frozenset({"l2"})
"""Those that a gradient's length changes."""


def _pairs(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(dummy, target, strict=True))


def _products(dummy: Sequence[Tensor], target: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """⟨dummy, target⟩, ⟨dummy, dummy⟩, ⟨target, target⟩."""
    pairs = _pairs(dummy, target)
    return (
        torch.stack([(a * b).sum() for a, b in pairs]).sum(),
        torch.stack([a.square().sum() for a, _ in pairs]).sum(),
        torch.stack([b.square().sum() for _, b in pairs]).sum(),
    )
