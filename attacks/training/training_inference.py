"""How did the client train? Guessed from its update, where the threat model does not say.

Every plausible setting is simulated on smooth noise from the broadcast weights. What training does
to the layers' weights — how far each moves, how evenly, which classes' rows — depends on the
settings far more than on the photos, so the simulation most like the update tells them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from fedaudit.attacks.training.replay import replay
from fedaudit.attacks.training.schedule import fixed_order
from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.attacks.training.trained_parameters import is_still
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.models.batch_norm import replay_mode

STEPS = (1, 2, 4, 8, 16)
RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
ADAM_RATES = (0.01, 0.003, 0.001, 0.0003, 0.0001)


@dataclass(frozen=True)
class Guess:
    """One setting and how unlike the update its simulation is; lower is more plausible."""

    training: LocalTraining
    distance: float


def plausible(
    count: int,
    *,
    steps: Sequence[int] = STEPS,
    rates: Sequence[float] = RATES,
    momenta: Sequence[float] = (0.0, 0.9),
    adam_rates: Sequence[float] = ADAM_RATES,
) -> list[LocalTraining]:
    """Settings that people use: SGD with and without momentum, Adam; all `count` images a step, or
    halves.
    """
    sizes = sorted({count, max(1, count // 2)}, reverse=True)
    settings = []
    for number, size in product(steps, sizes):
        if number * size < count:
            continue  # not all images would have been used
        for rate, momentum in product(rates, momenta):
            if number > 1 or not momentum:
                settings.append(LocalTraining(rate, number, size, momentum))
        settings += [LocalTraining(rate, number, size, optimizer="adam") for rate in adam_rates]
    return settings


def guess_training(
    seen: Observation,
    model: nn.Module,
    labels: Tensor,
    candidates: Sequence[LocalTraining],
    generator: torch.Generator,
    *,
    images: Tensor | None = None,
) -> list[Guess]:
    """All candidates, the most plausible first; costs one replay without derivatives each.

    Settings that lead to nearly the same update, such as more steps once the images are fitted, are
    not told apart by noise. A first search gives `images` `[N, C, H, W]` that can stand in for it:
    then the distance is the relative error of the whole update, and the few best candidates are
    tried again.

    Where the client shared counters of batch norm, they tell the number of steps, and candidates of
    another number are left out. The model's mode is left as the last candidate's.

    Raises:
        KnowledgeError: The number or size of the images is not known.
        AttackError: No weight delta among what was shared, or no candidate left.
    """
    if seen.batch_size is None or seen.image_shape is None:
        raise KnowledgeError(
            "guessing how a client trains needs the number and size of its images: use threat "
            "model B or above."
        )
    if seen.update is None or seen.update.kind != "delta":
        raise AttackError("only a weight delta tells how a client trained; a gradient is one step")
    steps = count_steps(seen)
    left = [c for c in candidates if steps is None or c.steps == steps]
    if not left:
        raise AttackError(
            f"the client's counters say {steps} local steps, and no candidate has them: add some."
        )
    dummies = images
    if dummies is None:
        dummies = smooth_noise(seen.batch_size, seen.image_shape, generator).to(labels.device)
    own, update = dict(model.named_parameters()), seen.update.tensors
    delta_sent = {n: t for n, t in update.items() if n in own and t.numel() > 1 and bool(t.any())}
    still = {n for n in own if is_still(n, seen.before, update)}
    guesses = []
    for candidate in left:
        delta = replay(
            replay_mode(model, candidate),
            seen.before,
            dummies,
            labels,
            candidate,
            order=fixed_order(seen.batch_size, candidate),
            create_graph=False,
            names=list(delta_sent),
            still=still,
        )
        compare = unlike if images is None else relative_error
        guesses.append(Guess(candidate, compare(delta, delta_sent)))
    return sorted(guesses, key=lambda guess: guess.distance)


def count_steps(seen: Observation) -> int | None:
    """The number of local steps, as batch-norm counters tell it; None without them."""
    counters = {
        int(value)
        for name, value in (seen.buffers.tensors if seen.buffers else {}).items()
        if name.endswith("num_batches_tracked")
    }
    return max(counters) if counters and max(counters) > 0 else None


def unlike(simulated: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> float:
    """How unlike two deltas are in everything but the images; ≥ 0, infinite where one diverged.

    Mean over parameters of the absolute difference in the logarithms of two lengths: the root mean
    square and the largest entry. Their ratio separates Adam's even steps from SGD's.
    """
    terms = []
    for name, true in shared.items():
        dummy = simulated[name]
        if not bool(torch.isfinite(dummy).all()):
            return math.inf
        for one, two in zip(_lengths(dummy), _lengths(true), strict=True):
            terms.append(abs(math.log((one + 1e-12) / (two + 1e-12))))
    return sum(terms) / len(terms)


def relative_error(dummy: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> float:
    """‖dummy − shared‖ / ‖shared‖ over all parameters; infinite where the dummy diverged."""
    off = sum(float((dummy[name] - true).square().sum()) for name, true in shared.items())
    size = sum(float(true.square().sum()) for true in shared.values())
    return math.sqrt(off / max(size, 1e-24)) if math.isfinite(off) else math.inf


def _lengths(value: Tensor) -> tuple[float, float]:
    return float(value.square().mean().sqrt()), float(value.abs().max())
