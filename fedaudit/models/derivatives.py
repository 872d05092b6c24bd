"""Whether attacks can work through a network: its parameters replaced, and derived twice."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedaudit.errors import UsageError

STEP = 1e-7
"""Size of the move of each pixel, in double precision: small beside any kink's distance."""
TOLERANCE = 0.05


def check_differentiable(network: nn.Module, image_shape: Sequence[int]) -> bool:
    """Try what a search does: from the images to the loss, its gradient, and that one's slope.

    Args:
        network: Left in the mode that it is in.
        image_shape: `(C, H, W)`.

    Returns:
        Whether the slope is that by which the gradient moves: an operation of one's own may give
        another one, or none, and say nothing. True where that cannot be told.

    Raises:
        UsageError: It takes no such images, gives no scores `[N, K]`, or has an operation without a
            second derivative.
    """
    training = network.training
    network.eval()
    try:
        return _check(network, image_shape)
    finally:
        network.train(training)


def _check(network: nn.Module, image_shape: Sequence[int]) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, *image_shape, generator=generator)
    if next(network.parameters(), None) is None:
        raise UsageError("the model has no parameters: nothing was learned, nothing is shared.")
    try:
        scores = network(images)
    except Exception as error:  # a stranger's network may raise anything
        raise UsageError(
            f"the model does not take images {list(image_shape)}: {_first_line(error)}. Check "
            "image_shape, or name another --model."
        ) from error
    _check_scores(scores)
    try:
        _gradient_size(network, images, torch.float32)
    except Exception as error:
        raise UsageError(
            f"the model cannot be derived twice, as every search must: {_first_line(error)}. Name "
            "a factory that computes the same by other operations: --model package.module:factory."
        ) from error
    step = STEP * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    try:
        ahead, _ = _gradient_size(network, images + step, torch.float64)
        back, _ = _gradient_size(network, images - step, torch.float64)
        _, slope = _gradient_size(network, images, torch.float64)
    except Exception:  # it computes in one precision only
        return True
    moved, told = float(ahead - back), float((slope * step).sum()) * 2
    return abs(moved - told) <= TOLERANCE * max(abs(moved), abs(told))


def _gradient_size(network: nn.Module, images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Squared norm of the loss's gradient, and its slope in the images."""
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    held = {n: t.detach().to(dtype) if t.is_floating_point() else t for n, t in own.items()}
    learned = [held[n].requires_grad_() for n, _ in network.named_parameters()]
    images = images.to(dtype).requires_grad_()
    scores = functional_call(network, held, (images,))
    loss = F.cross_entropy(scores, torch.zeros(len(images), dtype=torch.long))
    slopes = torch.autograd.grad(loss, learned, create_graph=True, allow_unused=True)
    size = torch.stack([s.square().sum() for s in slopes if s is not None]).sum()
    (slope,) = torch.autograd.grad(size, images, allow_unused=True)
    return size.detach(), torch.zeros_like(images) if slope is None else slope


def _check_scores(scores: object) -> None:
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != 2:
        what = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise UsageError(
            f"the model gives {what} for two images; needed are scores [N, classes]. Name a "
            "factory that gives these alone."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
