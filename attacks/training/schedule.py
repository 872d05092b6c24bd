"""What is known of local training before any image is: who is in a step, what a step counts.

The server does not see the client's order. Images are exchangeable, so within an epoch of disjoint
mini-batches any order is as good as the true one; only from epoch to epoch batches are mixed anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor

from fedaudit.core.observation import LocalTraining

Order = Sequence[Sequence[int]]
"""For each step the indices of its images."""


def fixed_order(count: int, training: LocalTraining) -> list[list[int]]:
    """An order of the attacker's own: images 0, 1, … in turn, alike in every epoch."""
    size = min(training.batch_size, count)
    an_epoch = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    return [an_epoch[step % len(an_epoch)] for step in range(training.steps)]


def step_factors(training: LocalTraining) -> list[float]:
    """Factor of each step's slope in −delta; their sum is the update's scale.

    With momentum m the slope of step s of T, s from 0, acts in every later step too: its factor is
    lr · (1 − m^(T−s)) / (1 − m). Adam is taken as steps of the learning rate.
    """
    return [training.lr * move for move in reversed(_moves(training))]


def _moves(training: LocalTraining) -> list[float]:
    """How far each step goes where all slopes are 1: 1 + m + … + m^s for momentum m."""
    m = training.momentum if training.optimizer == "sgd" else 0.0
    return list(accumulate(m**k for k in range(training.steps)))


def scale_of(training: LocalTraining) -> float:
    """The effective learning rate: −delta = scale × mean slope; 1 without local steps."""
    return sum(step_factors(training)) or 1.0


@dataclass(frozen=True)
class Pace:
    """How a client covers the way from the global to its local weights.

    Attributes:
        places: Fraction of the way that lies behind it as each step begins; the first is 0.
        parts: Fraction of the way that is owed to each step's slope.
    """

    places: tuple[float, ...]
    parts: tuple[float, ...]

    def center(self, steps: Sequence[int]) -> float:
        """The mean place at which the slopes of `steps` are taken, by what they contribute."""
        weights = [max(self.parts[s], 0.0) for s in steps]
        if not sum(weights):
            return self.places[steps[0]]
        return sum(w * self.places[s] for w, s in zip(weights, steps, strict=True)) / sum(weights)

    def groups(self, points: int) -> list[range]:
        """Successive steps in at most `points` groups that contribute about the same."""
        positive = [max(part, 0.0) for part in self.parts]
        total, behind, numbers = sum(positive) or 1.0, 0.0, []
        for part in positive:
            middle = (behind + part / 2) / total
            numbers.append(min(int(middle * points), points - 1))
            behind += part
        return [
            range(numbers.index(n), len(numbers) - numbers[::-1].index(n))
            for n in sorted(set(numbers))
        ]


def steady_pace(training: LocalTraining) -> Pace:
    """The pace of slopes that stay the same: right for small steps only (see `simulate_pace`)."""
    *behind, way = accumulate(_moves(training), initial=0.0)
    factors = step_factors(replace(training, lr=1.0))
    whole = sum(factors)
    return Pace(tuple(place / way for place in behind), tuple(f / whole for f in factors))


def without_decay(
    delta: Mapping[str, Tensor], before: Mapping[str, Tensor], training: LocalTraining
) -> dict[str, Tensor]:
    """The delta less what weights lost beside AdamW's steps.

    That each step's own move decays in later ones is less than a weight in single precision tells.
    """
    lost = 1 - (1 - training.lr * training.decoupled_decay) ** training.steps
    if not lost:
        return dict(delta)
    return {n: d + lost * before[n].to(d) if n in before else d for n, d in delta.items()}


def without_pulls(
    delta: Mapping[str, Tensor], before: Mapping[str, Tensor], training: LocalTraining
) -> dict[str, Tensor]:
    """The mean slope of the images' loss: −delta over its scale, less weight decay and FedProx.

    Both pull along weights that the server knows at either end, and nearly in between.
    """
    scale = scale_of(training)
    place = steady_pace(training).center(range(training.steps))
    slopes = {}
    for name, value in without_decay(delta, before, training).items():
        slope = -value / scale
        if training.optimizer == "sgd":
            if training.weight_decay and name in before:
                slope = slope - training.weight_decay * (before[name] + place * value)
            slope = slope - training.proximal * place * value
        slopes[name] = slope
    return slopes
