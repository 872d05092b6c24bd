"""What a defense would have done to the attacker's own gradients: defenses as functions of them.

The attacker knows the defense (it is public), so training gradients go through it like the
client's. A defense acts in up to two places: on each image's gradient, and on the mean that is
sent. What stays on the device is absent from what was shared, and needs no function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedaudit.errors import AttackError
from fedaudit.types import DefenseFacts

Batch = Mapping[str, Tensor]
"""Gradients by parameter name, each `[M, …]` with M gradients side by side."""
Act = Callable[[Batch, torch.Generator], dict[str, Tensor]]

MANY_ZEROS = 0.3
"""Share of zeros from which on an update counts as pruned: dead units leave some as well."""


@dataclass(frozen=True)
class Replayed:
    """A defense as functions of gradients.

    Attributes:
        each: Applied to per-image gradients, in order.
        mean: Applied to mean gradients, in order.
    """

    each: tuple[Act, ...] = ()
    mean: tuple[Act, ...] = ()


def replay_of(defenses: Sequence[DefenseFacts], count: int) -> Replayed:
    """The functions for the defenses in use, in order.

    Args:
        defenses: As in `Observation.defense`.
        count: Images behind the client's update.

    Raises:
        AttackError: One that is not in `REPLAYS`.
    """
    each: list[Act] = []
    mean: list[Act] = []
    for facts in defenses:
        if facts.name not in REPLAYS:
            raise AttackError(
                f"the defense {facts.name!r} cannot be replayed on training gradients; can be: "
                f"{', '.join(sorted(REPLAYS))}. Add its function to attacks/learned/"
                "replay_defense.py, or use an attack that needs no replay."
            )
        replayed = REPLAYS[facts.name](facts.settings, count)
        each += replayed.each
        mean += replayed.mean
    return Replayed(tuple(each), tuple(mean))


def estimated(target: Batch) -> tuple[DefenseFacts, ...]:
    """What a shared mean gradient `{name: [...]}` shows of a defense that was not told.

    Entries of one magnitude are signs; many zeros are pruning. Noise and clipping leave no mark
    that could not be a gradient's own, and are left out.
    """
    flat = torch.cat([value.flatten() for value in target.values()]).abs()
    rest = flat[flat > 0]
    if not len(rest):
        return ()
    if float(rest.max()) <= float(rest.min()) * (1 + 1e-5):
        return (DefenseFacts("sign", {}),)
    zeros = 1 - len(rest) / len(flat)
    return (DefenseFacts("pruning", {"pruned": zeros}),) if zeros > MANY_ZEROS else ()


def clip(bound: float) -> Act:
    """Scale each gradient to a norm of at most `bound` over all its parameters."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        factor = (bound / (_norms(batch) + 1e-6)).clamp(max=1)
        return {name: value * _along(factor, value) for name, value in batch.items()}

    return act


def add_noise(std: float, *, relative: bool = False) -> Act:
    """Gaussian noise of standard deviation `std` an entry.

    With `relative`, the noise's expected norm over all parameters is `std` times the gradient's.
    """

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        scale = torch.full_like(next(iter(batch.values())).flatten(1)[:, 0], std)
        if relative:
            scale = scale * _norms(batch) / _entries(batch) ** 0.5
        return {
            name: value
            + _along(scale, value) * torch.randn(value.shape, generator=generator).to(value)
            for name, value in batch.items()
        }

    return act


def keep_signs() -> Act:
    """The sign of every entry (signSGD)."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        return {name: value.sign() for name, value in batch.items()}

    return act


def keep_largest(share: float) -> Act:
    """The `share` of entries of largest magnitude, over all parameters together; others zero."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        flat = torch.cat([value.flatten(1) for value in batch.values()], 1).abs()
        number = max(1, round(share * flat.shape[1]))
        least = flat.topk(number, dim=1, sorted=False).values.amin(1)  # of those that are kept
        return {n: v * (v.abs() >= _along(least, v)) for n, v in batch.items()}

    return act


def _setting(settings: Mapping[str, Any], names: Sequence[str], defense: str) -> float:
    """The first of several names under which a setting may go."""
    for name in names:
        if name in settings:
            return float(settings[name])
    raise AttackError(
        f"the defense {defense!r} does not say its {' or '.join(names)}, so it cannot be replayed"
    )


def _dpsgd(settings: Mapping[str, Any], count: int) -> Replayed:
    bound = _setting(settings, ("max_grad_norm",), "dpsgd")
    sigma = _setting(settings, ("noise_multiplier",), "dpsgd")
    return Replayed((clip(bound),), (add_noise(sigma * bound / count),))


def _noise(settings: Mapping[str, Any], count: int) -> Replayed:
    del count
    if "relative" in settings:
        return Replayed(mean=(add_noise(float(settings["relative"]), relative=True),))
    return Replayed(mean=(add_noise(_setting(settings, ("std", "sigma"), "noise")),))


def _pruning(settings: Mapping[str, Any], count: int) -> Replayed:
    del count
    pruned = _setting(settings, ("pruned", "share", "rate"), "pruning")
    return Replayed(mean=(keep_largest(1 - pruned),))


def _clipping(settings: Mapping[str, Any], count: int) -> Replayed:
    del count
    return Replayed(mean=(clip(_setting(settings, ("max_grad_norm", "max_norm"), "clipping")),))


def _nothing(settings: Mapping[str, Any], count: int) -> Replayed:
    del settings, count
    return Replayed()


def _signs(settings: Mapping[str, Any], count: int) -> Replayed:
    del settings, count
    return Replayed(mean=(keep_signs(),))


REPLAYS: Mapping[str, Callable[[Mapping[str, Any], int], Replayed]] = {
    "none": _nothing,
    "private_projector": _nothing,
    "dplc": _nothing,
    "clipping": _clipping,
    "noise": _noise,
    "gaussian_noise": _noise,
    "sign": _signs,
    "pruning": _pruning,
    "top_k": _pruning,
    "dpsgd": _dpsgd,
}
"""(settings, images) → what to do, by the name in `DefenseFacts`."""


def _norms(batch: Batch) -> Tensor:
    """L2 norm of each gradient over all parameters, `[M]`."""
    return torch.stack([v.flatten(1).square().sum(1) for v in batch.values()]).sum(0).sqrt()


def _entries(batch: Batch) -> int:
    return sum(value[0].numel() for value in batch.values())


def _along(factor: Tensor, value: Tensor) -> Tensor:
    """`[M]` so that it broadcasts over `[M, …]`."""
    return factor.view(-1, *[1] * (value.dim() - 1))
