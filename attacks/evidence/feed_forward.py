"""The first feed-forward part of a transformer: one that treats every token by itself.

W₂ φ(W₁ z + b₁) of normalized tokens z, as every block of a vision transformer has it. It is found
by what the network computes, not by names: two linear layers in a row, the second of which is sent
φ of what the first gives out, behind a layer norm. A layer that multiplies `inputs @ matrix + bias`
by itself, as ports from other frameworks do, is linear, too.
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
        if isinstance(inner, nn.LayerNorm) or given.dim() != 3:
            continue
        outer, hidden, result = calls[number + 1]
        if isinstance(outer, nn.LayerNorm) or hidden.shape != sent.shape:
            continue
        activation = next((f for f in ACTIVATIONS if _same(f(sent), hidden)), None)
        norms = (m for m, _, out in calls[:number] if isinstance(m, nn.LayerNorm) and out is given)
        norm = next(norms, None)
        if activation is None or norm is None or sum(m is inner for m, _, _ in calls) > 1:
            continue
        if norm.weight is None or norm.bias is None or not norm.weight.all():
            continue
        first, second = _as_linear(inner, given, sent), _as_linear(outer, hidden, result)
        if first is None or second is None:
            continue
        names = {id(p): name for name, p in reading.model.named_parameters()}
        gradients = [_gradient(reading, names, one) for one in (first, second)]
        if gradients[0] is None or gradients[1] is None:
            return None
        pair = (gradients[0], gradients[1])
        return FeedForward(norm, first.layer, second.layer, activation, given.shape[1], pair)
    return None


@dataclass(frozen=True)
class _Linear:
    """A linear layer, and the parameter that is its matrix, or that matrix transposed."""

    layer: nn.Linear
    matrix: Tensor
    transposed: bool


def _as_linear(module: nn.Module, given: Tensor, sent: Tensor) -> _Linear | None:
    """What a module is that sends `given @ matrix.T + bias`; None for others."""
    if type(module) is nn.Linear:
        return _Linear(module, module.weight, transposed=False)
    matrix, bias = _matrix_and_bias(module)
    if matrix is None:
        return None
    for transposed in (False, True):
        weight = matrix.detach().T if transposed else matrix.detach()
        if weight.shape == (sent.shape[-1], given.shape[-1]):
            found = F.linear(given, weight, bias)
            if _same(found, sent):
                layer = nn.Linear(*weight.shape[::-1], bias=bias is not None, device="meta")
                layer.weight = nn.Parameter(weight, requires_grad=False)
                if bias is not None:
                    layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
                return _Linear(layer, matrix, transposed)
    return None


def _matrix_and_bias(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """The one matrix of a module that has nothing else but a bias; None, None of others."""
    own = list(module.parameters(recurse=False))
    matrices, vectors = ([p for p in own if p.dim() == n] for n in (2, 1))
    if len(matrices) != 1 or len(vectors) > 1 or len(list(module.parameters())) > len(vectors) + 1:
        return None, None
    return matrices[0], vectors[0] if vectors else None


def _gradient(reading: Reading, names: dict[int, str], linear: _Linear) -> Tensor | None:
    """Of a layer's matrix `[out, in]`, as the client sent it."""
    sent = reading.target.get(names[id(linear.matrix)])
    if sent is None:
        return None
    return sent.detach().T if linear.transposed else sent.detach()


def _same(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= SAME * two.abs().max())


def _calls(reading: Reading) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """What may be linear layers, and layer norms, with what they are given and give, in order."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, args[0], output))

    noise = torch.rand(2, *reading.shape, generator=torch.Generator().manual_seed(0))
    hooks = [
        module.register_forward_hook(note)
        for module in reading.model.modules()
        if isinstance(module, nn.LayerNorm) or _matrix_and_bias(module)[0] is not None
    ]
    try:
        with deterministic(reading.model), torch.no_grad():
            reading.model(noise.to(reading.like))
    finally:
        for hook in hooks:
            hook.remove()
    return calls
