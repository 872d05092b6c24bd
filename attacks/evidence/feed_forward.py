"""The first feed-forward part of a transformer: one that treats every token by itself.

W₂ φ(W₁ z + b₁) of normalized tokens z, as every block of a vision transformer has it. It is found
by what the network computes, not by names: two linear layers in a row, the second of which is sent
φ of what the first gives out, behind a layer norm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.evidence.reading import Reading

Activation = Callable[[Tensor], Tensor]


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: tuple[Activation, ...] = (F.gelu, _tanh_gelu, _quick_gelu, F.silu, F.relu)
"""What transformers have between the two layers."""
SAME = 1e-5
"""Error, relative to the largest number, up to which two results are the same by rounding."""


@dataclass(frozen=True)
class FeedForward:
    """W₂ φ(W₁ z + b₁) + b₂ of every token z, which a layer norm gives out.

    Attributes:
        norm: The layer norm before it.
        inner: W₁, b₁, `[H, D]`.
        outer: W₂, b₂, `[D, H]`.
        activation: φ.
        tokens: T, how many tokens an image has.
        gradients: Of W₁ and W₂, as the client sent them.
    """

    norm: nn.LayerNorm
    inner: nn.Linear
    outer: nn.Linear
    activation: Activation
    tokens: int
    gradients: tuple[Tensor, Tensor]


def first_feed_forward(reading: Reading) -> FeedForward | None:
    """The first in the order of the forward pass; None where there is none, or it was not sent."""
    calls = _calls(reading)
    for number, (inner, given, sent) in enumerate(calls[:-1]):
        if not isinstance(inner, nn.Linear) or given.dim() != 3:
            continue
        outer, hidden, _ = next(call for call in calls[number + 1 :])
        if not isinstance(outer, nn.Linear) or hidden.shape != sent.shape:
            continue
        activation = next((f for f in ACTIVATIONS if _same(f(sent), hidden)), None)
        norms = (m for m, _, out in calls[:number] if isinstance(m, nn.LayerNorm) and out is given)
        norm = next(norms, None)
        names = {id(module): name for name, module in reading.model.named_modules()}
        gradients = [reading.target.get(f"{names[id(one)]}.weight") for one in (inner, outer)]
        if activation is None or norm is None or sum(m is inner for m, _, _ in calls) > 1:
            continue
        if norm.weight is None or norm.bias is None or not norm.weight.all():
            continue
        if gradients[0] is None or gradients[1] is None:
            return None
        pair = (gradients[0].detach(), gradients[1].detach())
        return FeedForward(norm, inner, outer, activation, given.shape[1], pair)
    return None


def _same(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= SAME * two.abs().max())


def _calls(reading: Reading) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Linear layers and layer norms with what they are given and give out, in order."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.append((module, args[0], output))

    noise = torch.rand(2, *reading.shape, generator=torch.Generator().manual_seed(0))
    hooks = [
        module.register_forward_hook(note)
        for module in reading.model.modules()
        if isinstance(module, nn.Linear | nn.LayerNorm)
    ]
    try:
        with deterministic(reading.model), torch.no_grad():
            reading.model(noise.to(reading.like))
    finally:
        for hook in hooks:
            hook.remove()
    return calls
