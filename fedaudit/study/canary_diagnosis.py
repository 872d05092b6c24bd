"""Why canaries show more than is claimed: likely causes, tested one by one.

A canary that trains is to move its weight by C at the rate at which images are sampled, and one
that does not by nothing, both under noise of σC. Which of the two is off, and by how much, tells
one fault from another.
"""

import math

import torch
from torch import Tensor

from fedaudit.core.claims import Claim
from fedaudit.models.canary_network import STRENGTH
from fedaudit.study.canary_result import Cause
from fedaudit.study.canary_training import CanaryScores

CLOSE = 0.2
"""Relative deviation up to which a measured value counts as the expected one."""
SURE = 4.0
"""Standard errors by which a measured value must differ from the expected one."""
FAR = 8.0
"""Standard deviations of the expected noise beyond what a clipped canary can reach."""


def examine_causes(seen: CanaryScores, claim: Claim) -> tuple[Cause, ...]:
    """Causes in the order in which they explain others; () of no DP-SGD, or of steps by Adam."""
    clip, noise = claim.settings.get("C"), claim.settings.get("σ")
    photos = seen.photos
    plain = seen.training.optimizer == "sgd" and claim.stage == "training"
    if not (plain and isinstance(clip, float) and isinstance(noise, float)):
        return ()
    weights = _weights(seen)
    rate = claim.spendings[0].sampling if claim.spendings else 1.0
    size = torch.tensor(seen.batches)[seen.clients]
    shifts = seen.scores * size
    signal = float(shifts[seen.inside].mean() - shifts[~seen.inside].mean())
    spread = float(shifts[~seen.inside].std())
    sums, squares = sum(weights), math.sqrt(sum(w * w for w in weights))
    expected_signal, expected_spread = clip * photos * rate * sums, noise * clip * squares
    weaker = spread / expected_spread if expected_spread else 1.0
    moved_inside = shifts[seen.inside]
    far = moved_inside > clip * photos * sums + FAR * expected_spread
    beyond = float(far.float().mean())
    error = SURE * _error(moved_inside, shifts[~seen.inside]) / expected_signal
    margin, stronger = max(CLOSE, error), signal / expected_signal
    rest = float(moved_inside[~far].mean() - shifts[~seen.inside].mean()) / expected_signal
    some = 0 < beyond < 1 and abs(rest - 1) <= margin
    too_strong = not some and stronger > 1 + margin
    at_client = float(seen.inside.sum()) / len(seen.batches)
    batch_clipped = float(size.mean()) / math.sqrt(max(1.0, at_client)) / rate / photos
    no_clipping = abs(stronger * rate * clip / STRENGTH - 1) <= 2 * CLOSE
    every_step = rate < 1 and abs(stronger * rate - 1) <= margin
    return (
        Cause(
            "no noise",
            weaker < 0.02,
            f"canaries that did not train moved by ±{spread:.3g}, expected ±{expected_spread:.3g}",
        ),
        Cause(
            "noise on a wrong scale",
            0.02 <= weaker < 1 - CLOSE,
            f"the noise is {weaker:.3g} of σC",
        ),
        Cause(
            "part of the data without DP",
            some,
            f"{beyond:.1%} of the canaries that trained moved further than clipping allows",
        ),
        Cause(
            "gradients not clipped",
            too_strong and no_clipping,
            f"a canary of gradient {STRENGTH:g} moved its weight {stronger:.3g} times as far as "
            f"C = {clip:g} allows",
        ),
        Cause(
            "sampling not as accounted",
            too_strong and every_step,
            f"canaries moved {stronger:.3g} times as far as at a sampling rate of {rate:.3g}",
        ),
        Cause(
            "the batch clipped in place of each image",
            too_strong
            and not (no_clipping or every_step)
            and abs(math.log(stronger / batch_clipped)) < math.log(1.5),
            f"canaries moved {stronger:.3g} times as far as C = {clip:g} allows each; a batch that "
            f"is clipped as a whole lets {batch_clipped:.3g} times as much through",
        ),
        Cause(
            "buffers in clear",
            any(gap.what == "buffers" for gap in claim.gaps),
            "running statistics are among what is sent"
            if any(gap.what == "buffers" for gap in claim.gaps)
            else "no running statistics are sent",
        ),
    )


def _error(inside: Tensor, outside: Tensor) -> float:
    """Standard error of the difference of two means."""
    return math.sqrt(float(inside.var()) / len(inside) + float(outside.var()) / len(outside))


def _weights(seen: CanaryScores) -> list[float]:
    """How far one gradient moves the weight by the end of its round, of each step of all rounds."""
    if seen.share == "gradient":
        return [1.0] * seen.rounds
    training = seen.training
    m, steps = training.momentum, training.steps
    left = [sum(m**k for k in range(steps - step)) for step in range(steps)]
    return [training.lr * one for one in left] * seen.rounds
