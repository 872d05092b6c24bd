"""Noise that is claimed and is not in recorded updates, and noise that is the same twice."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from fedaudit.captures.format.capture_facts import DpClaim, Facts
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.format.tensor_names import is_buffer
from fedaudit.captures.format.update_measures import Measures
from fedaudit.core.errors import CaptureError, UsageError
from fedaudit.core.recorded_run import Protection

MISSING = "less noise than claimed"
REPEATED = "noise that repeats"
TOLERANCE = 0.2
"""Relative difference from the noise's size up to which a layer under Adam counts as noise."""
FAINT = 0.3
"""Bound of the signal over the noise, of a whole round, up to which only noise is to be seen."""
ALIKE = 0.5
"""Cosine of two updates above which they share their noise; without, it is 0 ± 0.004."""
MESSAGES, NUMBERS = 8, 1 << 16
"""Messages that are compared, and numbers of each."""


def missing_noise(number: int, usable: Sequence[Measures], facts: Facts) -> list[Protection]:
    """Noise that every client is said to add leaves no layer quieter than itself."""
    claim = facts.dp
    if claim is None or claim.where == "server" or not claim.noise or claim.clip is None:
        return []
    deviation = claim.noise * (claim.sensitivity or claim.clip)
    of_images = claim.unit not in {None, "client"}
    if of_images:
        if (facts.optimizer or "sgd").lower().startswith("adam"):
            return _missing_under_adam(number, usable, facts, claim)
        # Noise of σC on the sum of a batch, averaged, in each step of SGD; momentum adds to it.
        is_stated = facts.lr and facts.batch_size and (facts.optimizer or "sgd").lower() == "sgd"
        if not is_stated or facts.lr is None or facts.batch_size is None:
            return []
        deviation *= facts.lr / facts.batch_size * math.sqrt(facts.local_steps or 1)
    quiet = [min(layer.rms for layer in m.layers.values() if layer.size >= 16) for m in usable]
    if not quiet or max(quiet) > deviation / 2:
        return []
    evidence = (
        f"noise of {'lr · σ·C / batch · √steps' if of_images else 'σ·C'} = {deviation:.3g} a "
        "parameter is claimed, and every update has a layer whose "
        f"root mean square is {max(quiet):.3g} or less: the noise is not in what was shared"
    )
    return [Protection(MISSING, True, evidence, number, len(quiet), max(quiet))]


def _missing_under_adam(
    number: int, usable: Sequence[Measures], facts: Facts, claim: DpClaim
) -> list[Protection]:
    """Adam gives each number steps of its own size, and so to noise everywhere the same.

    Where clipping keeps what images say far below the noise, all layers must have moved as far as
    noise alone moves them. After one step everything has, with noise or without.
    """
    lr, batch, steps = facts.lr, facts.batch_size, facts.local_steps
    if lr is None or batch is None or steps is None or steps < 2 or claim.noise is None:
        return []
    faint = [
        m for m in usable if batch / (claim.noise * math.sqrt(m.size)) * math.sqrt(steps) < FAINT
    ]
    move = lr * moved_by_noise(steps)
    worst = []
    for m in faint:
        ratios = [layer.rms / move for layer in m.layers.values() if layer.size >= 256]
        off = [ratio for ratio in ratios if abs(ratio - 1) > TOLERANCE]
        if off:
            worst.append(max(off, key=lambda ratio: abs(math.log(max(ratio, 1e-12)))))
    if not worst or 2 * len(worst) <= len(faint):
        return []
    middle = sorted(worst)[len(worst) // 2]
    evidence = (
        f"{steps} steps of Adam on the noise that is claimed move every number by {move:.3g} "
        f"(root mean square), and {len(worst)} of {len(faint)} updates have a layer that moved by "
        f"{middle:.3g} times that: the noise is not in what was shared"
    )
    return [Protection(MISSING, True, evidence, number, len(worst), middle * move)]


@cache
def moved_by_noise(steps: int) -> float:
    """How far Adam, at its usual decay rates, moves a number on noise alone, in learning rates.

    >>> round(moved_by_noise(1), 3)
    1.0
    """
    draws = torch.Generator().manual_seed(0)
    first, second, movement = (torch.zeros(1 << 14, dtype=torch.float64) for _ in range(3))
    for step in range(1, min(steps, 2000) + 1):
        gradient = torch.randn(1 << 14, generator=draws, dtype=torch.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        movement += first / (1 - 0.9**step) / (second / (1 - 0.999**step)).sqrt()
    return float(movement.square().mean().sqrt()) * math.sqrt(max(1.0, steps / 2000))


def repeated_noise(capture: StoredCapture, rounds: Sequence[int]) -> list[Protection]:
    """Updates that noise drowns and that are alike all the same: their noise is one and the same.

    Whoever has two of them takes their difference, and the noise is gone.

    Args:
        capture: Whose updates are read, a few of the first rounds.
        rounds: In which noise drowns the updates.
    """
    records = [one for number in rounds[:3] for one in capture.messages(number)]
    samples = [
        (one.message, numbers)
        for one in records
        if not one.message.aggregate and len(numbers := _numbers(capture, one)) > 1000
    ][:MESSAGES]
    alike = [
        (one, other, cosine)
        for (one, a), (other, b) in combinations(samples, 2)
        if len(a) == len(b)
        and (cosine := float(torch.cosine_similarity(a, b, dim=0))) > ALIKE
        and not torch.equal(a, b)
    ]
    if not alike:
        return []
    one, other, cosine = alike[0]
    evidence = (
        f"noise drowns the updates of {one.client!r} in round {one.round} and of {other.client!r} "
        f"in round {other.round}, and their cosine is {cosine:.2f}: it is the same noise, which "
        f"cancels in their difference ({len(alike)} of {math.comb(len(samples), 2)} pairs)"
    )
    return [Protection(REPEATED, True, evidence, None, len(alike), cosine)]


def _numbers(capture: StoredCapture, record: StoredMessage) -> Tensor:
    """The first numbers of the change that an update means; none where it cannot be read."""
    message, facts = record.message, capture.facts
    try:
        before = {}
        if message.kind == "weights":
            before = capture.broadcast_message(message.round, message.client).tensors()
        parts = [
            (value.float() - before[name].float() if before else value.float()).flatten()
            for name, value in record.tensors().items()
            if value.is_floating_point() and not is_buffer(name, facts.buffers)
        ]
    except (CaptureError, UsageError, KeyError):
        return torch.empty(0)
    return torch.cat(parts)[:NUMBERS] if parts else torch.empty(0)
