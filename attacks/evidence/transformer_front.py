"""A vision transformer up to its first feed-forward part, to run on patches."""

from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.evidence.feed_forward import FeedForward
from fedaudit.attacks.evidence.position_embedding import channel_scale, places
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.module_copy import copy_detached


class _Heard(Exception):  # noqa: N818  # ends a forward pass; it is no error
    """The layer norm has been heard."""


@dataclass(frozen=True)
class Front:
    """A transformer up to its first feed-forward part, in double precision.

    Attributes:
        model: The network.
        patch: Its layer of patches.
        norm: The layer norm before the feed-forward part.
        span: Orthonormal `[R, F]`: the patches of the batch are in it.
        sizes: How much of each they likely have, relatively, `[R]`.
        zero: What enters `patch` of a black image, `[1, C, H, W]`.
        one: The same of a white one.
    """

    model: nn.Module
    patch: nn.Conv2d
    norm: nn.LayerNorm
    span: Tensor
    sizes: Tensor
    zero: Tensor
    one: Tensor

    def single(self) -> "Front":
        """A copy in single precision."""
        span, sizes, zero, one = (x.float() for x in (self.span, self.sizes, self.zero, self.one))
        model = copy_detached(self.model)
        own = dict(zip(self.model.modules(), model.float().modules(), strict=True))
        patch, norm = own[self.patch], own[self.norm]
        assert isinstance(patch, nn.Conv2d)
        assert isinstance(norm, nn.LayerNorm)
        return Front(model, patch, norm, span, sizes, zero, one)

    def images(self, patches: Tensor) -> Tensor:
        """The images `[n, C, H, W]` of patches `[n, P, F]`."""
        size = tuple(self.zero.shape[2:])
        inputs = F.fold(patches.mT, size, self.patch.kernel_size, stride=self.patch.stride)
        images: Tensor = (inputs - self.zero) / (self.one - self.zero)
        return images

    @property
    def places(self) -> int:
        """P, how many patches an image has."""
        return places(self.zero.shape[2:], self.patch)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch."""
        height, width = self.patch.kernel_size
        return height, width

    def run(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[n, T, D]` before the layer norm, of patches `[n, P, F]`, and their contexts."""
        heard: dict[str, Tensor] = {}

        def embed(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            heard["embedded"] = output.flatten(2).mT

        def end(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            heard["before"] = args[0]
            raise _Heard

        hooks = self.patch.register_forward_hook(embed), self.norm.register_forward_pre_hook(end)
        try:
            with deterministic(self.model), suppress(_Heard):
                self.model(self.images(patches))
        finally:
            for hook in hooks:
                hook.remove()
        before, embedded = heard["before"], heard["embedded"]
        extra = before.shape[1] - embedded.shape[1]
        contexts = torch.cat([before[:, :extra], before[:, extra:] - embedded], 1)
        return before, contexts


def front_of(reading: Reading, name: str, patch: nn.Conv2d, layers: FeedForward) -> Front | None:
    """It, with the span of the batch's patches; None where pixels are changed in other ways before
    the layer of patches, or the batch has too many patches for a span.

    Args:
        reading: The network, with its mean gradient.
        name: Of the patch layer's weight.
        patch: That layer.
        layers: The first feed-forward part.
    """
    scale = channel_scale(reading, patch)
    rank = reading.count * places(reading.shape[1:], patch)
    matrix = reading.target[name].detach().flatten(1).double().cpu()
    if scale is None or rank + 2 >= min(matrix.shape):
        return None
    model = copy_detached(reading.model).double().cpu().requires_grad_(False)
    modules = dict(zip(reading.model.modules(), model.modules(), strict=True))
    own_patch, own_norm = modules[patch], modules[layers.norm]
    assert isinstance(own_patch, nn.Conv2d)
    assert isinstance(own_norm, nn.LayerNorm)
    _, sizes, rows = torch.linalg.svd(matrix, full_matrices=False)
    sizes = (sizes[:rank] / sizes[0]).sqrt()
    zero, one = (value.double().cpu() for value in scale)
    return Front(model, own_patch, own_norm, rows[:rank], sizes, zero, one)
