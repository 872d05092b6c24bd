"""A network as a plain stack of layers that can be walked backwards, in double precision."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from fedaudit.core.errors import AttackError
from fedaudit.models.bodies import Standardize
from fedaudit.models.facenet import FaceNet

EDGE = 1e-9
"""How close to its limits the output of a sigmoid is taken to be at most."""


@dataclass(frozen=True)
class Affine:
    """A convolution or fully connected layer, for inputs of shape `inputs`, batch of one."""

    name: str
    weight: Tensor
    bias: Tensor | None
    inputs: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)

    @property
    def is_dense(self) -> bool:
        """Whether the layer is fully connected."""
        return self.weight.dim() == 2

    def constraints(self, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """W x and ∂L/∂W for an input x and the gradient that arrives at the output."""
        if self.is_dense:
            return x @ self.weight.T, upstream.T @ x
        rest = (self.stride, self.padding, self.dilation)
        forward = torch.nn.functional.conv2d(x, self.weight, None, *rest)
        gradient: Tensor = conv2d_weight(x, self.weight.shape, upstream, *rest)  # type: ignore[no-untyped-call]
        return forward, gradient

    def gathered(self, one: Tensor, two: Tensor, upstream: Tensor) -> Tensor:
        """The transpose of `constraints`, for fixed `upstream`."""
        if self.is_dense:
            return one @ self.weight + upstream @ two
        return self._to_input(self.weight, one) + self._to_input(two, upstream)

    def transposed(self, upstream: Tensor) -> Tensor:
        """The gradient with respect to the input."""
        if self.is_dense:
            return upstream @ self.weight
        return self._to_input(self.weight, upstream)

    def _to_input(self, weight: Tensor, upstream: Tensor) -> Tensor:
        rest = (self.stride, self.padding, self.dilation)
        result: Tensor = conv2d_input(self.inputs, weight, upstream, *rest)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True)
class Inverse:
    """A layer to undo: (output, gradient at the output) → (input, gradient at the input)."""

    back: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


Layer = Affine | Inverse


def stack_of(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a `FaceNet` without pooling, or nested `nn.Sequential`, from pixels to scores.

    Raises:
        AttackError: The network is another, or has a layer that cannot be undone.
    """
    layers: list[Layer] = []
    x = torch.zeros(1, *shape).to(next(model.parameters()))
    with torch.no_grad():
        for name, module in _modules(model):
            if isinstance(module, nn.Conv2d | nn.Linear):
                layers.append(_affine(name, module, tuple(x.shape)))
            else:
                layers.append(Inverse(_inverse(name, module, tuple(x.shape))))
            x = module(x)
    return layers


def _modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, FaceNet):
        if model.pool != "flatten":
            raise _refusal("average pooling", "cannot be undone")
        parts = (("body", model.body), ("", nn.Flatten()), ("embedding", model.embedding))
        for name, part in (*parts, ("head", model.head)):
            yield from _modules(part, name)
    elif isinstance(model, nn.Sequential):
        for name, child in model.named_children():
            yield from _modules(child, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, model


def _affine(name: str, module: nn.Conv2d | nn.Linear, inputs: tuple[int, ...]) -> Affine:
    weight = module.weight.detach().double()
    bias = None if module.bias is None else module.bias.detach().double()
    if isinstance(module, nn.Linear):
        return Affine(name, weight, bias, inputs)
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise _refusal(name, "is a convolution with groups or with padding other than zeros")
    return Affine(name, weight, bias, inputs, module.stride, module.padding, module.dilation)


def _inverse(
    name: str, module: nn.Module, inputs: tuple[int, ...]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    if isinstance(module, Standardize):
        return lambda y, g: ((y + 1) / 2, g * 2)
    if isinstance(module, nn.Flatten | nn.Identity | nn.Unflatten):
        return lambda y, g: (y.reshape(inputs), g.reshape(inputs))
    if isinstance(module, nn.LeakyReLU) and module.negative_slope > 0:
        slope = module.negative_slope

        def leaky(y: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
            return torch.where(y > 0, y, y / slope), torch.where(y > 0, g, g * slope)

        return leaky
    if isinstance(module, nn.Sigmoid):
        return lambda y, g: (y.clamp(EDGE, 1 - EDGE).logit(), g * y * (1 - y))
    if isinstance(module, nn.Tanh):
        return lambda y, g: (y.clamp(EDGE - 1, 1 - EDGE).atanh(), g * (1 - y.square()))
    raise _refusal(name, f"is a {type(module).__name__}, which cannot be undone")


def _refusal(name: str, why: str) -> AttackError:
    return AttackError(
        f"r_gap walks a network backwards, but {name} {why}. It takes plain stacks of convolutions "
        "and fully connected layers with leaky ReLU, sigmoid or tanh. Use the network plain_cnn or "
        "small_cnn, or another attack such as inverting_gradients."
    )
