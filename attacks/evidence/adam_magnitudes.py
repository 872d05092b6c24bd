"""How large each number of a gradient was, out of the first step that Adam took along it.

That step is lr · g / (|g| + ε) for every number g of the gradient: its sign, it seems, as ε is 1e-8
(Kingma & Ba, ICLR 2015). But what the step lacks to the whole learning rate is ε / (|g| + ε) of it,
and a weight of 0.02 in single precision tells steps of 0.001 apart to a millionth of one: numbers
up to some 1e-3 come back, the smaller the more exactly, and with them most of a deep network's
gradient. What is larger is known by its sign, and by how small it is not. Another ε scales all of
them alike, which spans do not mind.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.training.replay import EPSILON
from fedaudit.core.training import LocalTraining

ARITHMETIC = 1e-7
"""Standard error of a step in units of the learning rate, by Adam's own rounding: a few operations
of single precision, 6e-8 each."""
DISTINCT = 4.0
"""Standard errors by which a step must miss the learning rate for its number to be known."""
EXACT = 0.999
"""Share of the weights that must have been single precision after the step: else what was sent was
rounded once more (half precision, compression), and steps say signs alone."""


def read_magnitudes(
    delta: Mapping[str, Tensor], before: Mapping[str, Tensor], training: LocalTraining
) -> dict[str, KnownEntries]:
    """The known numbers of the images' gradient, by parameter.

    Args:
        delta: Local weights − global weights, by name.
        before: Global weights.
        training: The client's settings.

    Returns:
        {} unless one step of Adam was taken, in single precision, and sent as it was: noise that
        was added, or a scale, make steps that are longer than the learning rate.
    """
    if not training.by_adam or training.steps != 1:
        return {}
    known = {}
    for name, change in delta.items():
        if name not in before or not change.is_floating_point():
            continue
        weight = before[name].to(change)
        after = weight + change
        if change.dtype != torch.float32 or _is_rounded(weight, after, change):
            return {}
        # AdamW is often told to decay some parameters only: embeddings and biases are left out.
        entries = _entries(weight, after, training, training.decoupled_decay)
        if entries is None and training.decoupled_decay:
            entries = _entries(weight, after, training, 0.0)
        if entries is None:
            return {}
        known[name] = entries
    return known


def _is_rounded(weight: Tensor, after: Tensor, change: Tensor) -> bool:
    """Whether the change is none between two weights of single precision."""
    if not change.numel():
        return False
    return float(((after - weight) == change).double().mean()) < EXACT


def _entries(
    weight: Tensor, after: Tensor, training: LocalTraining, decay: float
) -> KnownEntries | None:
    """Of one parameter; None where it made other steps than Adam's, beside this decay."""
    spacing = torch.nextafter(after.abs(), after.new_tensor(torch.inf)) - after.abs()
    error = spacing.double() / (12**0.5 * training.lr) + ARITHMETIC
    # Decoupled decay rounds the weight before the step, to the bit as here.
    decayed = weight * (1 - training.lr * decay)
    step = (decayed.double() - after.double()) / training.lr
    lacking = 1 - step.abs()
    if bool((lacking < -DISTINCT * error).any()):
        return None
    is_known = lacking > DISTINCT * error
    lacking = lacking.where(is_known, torch.ones_like(lacking))
    numbers = (EPSILON * step / lacking).where(is_known, torch.zeros_like(step))
    # g = ε s / (1 − s), so that its derivative is ε / (1 − s)².
    errors = (EPSILON * error / lacking.square()).where(is_known, torch.full_like(step, torch.inf))
    return KnownEntries(numbers - training.penalty * weight.double() * is_known, errors)
