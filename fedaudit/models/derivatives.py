"""Second derivatives: a check that a network has them, and help where torch lacks them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointFunction

from fedaudit.core.errors import UsageError, first_line
from fedaudit.models.faulty_layer import changing_layer
from fedaudit.models.functional import functional_call
from fedaudit.models.scores_check import check_loss, scores_of

STEPS = 1e-7, 1e-9
"""Moves of each pixel, in double precision. In a step an activation may bend, and not in a shorter
one."""
TOLERANCE = 0.05
OTHER_DERIVATIVES = (
    "second derivatives of the model are not those of its gradient: an operation of its own has "
    "none, or a part of what it computes is detached, so that searches by gradients may fail or be "
    "weak for this reason alone"
)
"""What is said of a model for which `check_differentiable` is False."""
ROUNDING = 1e-12
"""Of a gradient's size: what moves it by less cannot be told."""


class TwiceHardsigmoid(nn.Module):
    """`nn.Hardsigmoid` by operations that have a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp = nn.ReLU6()  # a layer, so that non-smooth activations are found

    def forward(self, x: Tensor) -> Tensor:
        """Hard sigmoid of `x`."""
        outputs: Tensor = self.ramp(x + 3) / 6
        return outputs


def replace_hardsigmoid(network: nn.Module) -> None:
    """Give a network second derivatives where torch has none, in place; no name changes."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Hardsigmoid:
                module._modules[name] = TwiceHardsigmoid().train(child.training)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Second derivatives where torch has none, in a `with` block.

    Attention runs by plain operations, as the fused ones have none, and what torch.compile compiled
    runs as it was written. So does what reentrant checkpoints compute again to save memory: they
    refuse `torch.autograd.grad`.
    """
    compiled = "torch._dynamo" in sys.modules  # what is compiled has imported it, in seconds
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), eager, _without_checkpoints():
        yield


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    usual = CheckpointFunction.apply
    CheckpointFunction.apply = lambda function, _preserve, *args: function(*args)  # type: ignore[method-assign]
    try:
        yield
    finally:
        CheckpointFunction.apply = usual  # type: ignore[method-assign]


def check_differentiable(network: nn.Module, image_shape: Sequence[int]) -> bool:
    """Check that the gradient of the loss can be differentiated again, as every search does.

    Returns:
        Whether the slope is that by which the gradient moves: an operation of one's own may give
        another one, or none, and say nothing. True where that cannot be told.

    Raises:
        UsageError: It takes no images `[N, *image_shape]`, gives no scores `[N, K]`, is random, has
            no layer with a matrix, or an operation without a second derivative.
    """
    training = network.training
    network.eval()
    try:
        with twice_differentiable():
            return _check(network, image_shape)
    finally:
        network.train(training)


def _check(network: nn.Module, image_shape: Sequence[int]) -> bool:
    generator = torch.Generator().manual_seed(0)
    first = next(network.parameters(), None)
    if first is None:
        raise UsageError("the model has no parameters: nothing was learned, nothing is shared.")
    images = torch.rand(2, *image_shape, generator=generator).to(first.dtype)
    check_loss(network, scores_of(network, images))
    if (layer := changing_layer(network, images, seeds=(0, 0))) is not None:
        raise UsageError(
            f"the model's layer {layer} gives other numbers for the same image each time, in "
            "evaluation mode too: it remembers what it has seen, as observers of quantization do. "
            "Let it remember in training mode only (self.training), or turn it off."
        )
    if (layer := changing_layer(network, images)) is not None:
        raise UsageError(
            f"the model's layer {layer} gives other numbers for the same image each time, in "
            "evaluation mode too: it is random, and what a client drew nobody can repeat. Draw in "
            "training mode only (self.training), as dropout does."
        )
    if not any(p.dim() > 1 for p in network.parameters()):
        name = next(n for n, _ in network.named_parameters())
        raise UsageError(
            f"the model has no layer whose gradient says what entered it: {name!r} and all others "
            "are scales and offsets. Name the network with its convolutions or fully connected "
            "layers."
        )
    image = images[:1].double()
    move = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    try:
        slope = _slope(network, image)
        return any(_agrees(network, image, slope, length * move) for length in STEPS)
    except UsageError:
        raise
    except Exception:  # it may compute in one precision only
        try:
            _slope(network, images[:1])
        except UsageError:
            raise
        except Exception as error:
            reason = first_line(error).rstrip(".")
            raise UsageError(
                f"the model cannot be derived twice, as every search must: {reason}. Name a "
                "factory that computes the same by other operations: --model "
                "package.module:factory."
            ) from error
        return True


def _agrees(network: nn.Module, image: Tensor, slope: Tensor, step: Tensor) -> bool:
    """Whether the gradient's size changes by a step as its slope says, as far as can be told."""
    ahead, back = (float(_gradient_size(network, image + s * step)) for s in (1, -1))
    actual, prediction = ahead - back, 2 * float((slope * step).sum())
    return abs(actual - prediction) <= max(
        TOLERANCE * max(abs(actual), abs(prediction)), ROUNDING * ahead
    )


def _slope(network: nn.Module, image: Tensor) -> Tensor:
    """How the gradient's size changes with each pixel, by differentiation."""
    image = image.clone().requires_grad_()
    size = _gradient_size(network, image, twice=True)
    (slope,) = torch.autograd.grad(size, image, allow_unused=True)
    return torch.zeros_like(image) if slope is None else slope


def _gradient_size(network: nn.Module, image: Tensor, *, twice: bool = False) -> Tensor:
    """Squared norm of the loss's gradient in the parameters, in the precision of the image."""
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    state = {n: t.detach().to(image) if t.is_floating_point() else t for n, t in own.items()}
    parameters = [state[n].requires_grad_() for n, _ in network.named_parameters()]
    scores = functional_call(network, state, (image,))
    unlikely = scores.detach().argmin(1)  # of a class that is certain the gradient is rounding
    loss = F.cross_entropy(scores, unlikely)
    slopes: tuple[Tensor | None, ...] = ()
    if loss.requires_grad:
        slopes = torch.autograd.grad(loss, parameters, create_graph=twice, allow_unused=True)
    squares = [slope.square().sum() for slope in slopes if slope is not None]
    if not squares:
        raise UsageError(
            "no parameter of the model has a gradient: its forward pass cuts them all off, as "
            "torch.no_grad(), detach() and quantized layers do. Give the network as it was trained."
        )
    return torch.stack(squares).sum()
