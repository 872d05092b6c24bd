"""Inner products of all patches of a map, from those of its places.

A patch of k × k places has the inner product with another that is the sum, over its places, of
those of places: ⟨u_p, u_q⟩ = Σ_s ⟨x_{p+s}, x_{q+s}⟩. So the Gram matrix of 3 × 3 patches costs a
ninth of the products, and sums along its diagonals, first in one direction of the image, then in
the other.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_unfolding import is_centered

# With 32 channels a map of 14 × 14 places takes half of the time so, one of 6 × 6 the same.
LEAST_CHANNELS = 32
"""Numbers of a place from which on that is faster."""


def has_patch_gram(layer: nn.Module) -> bool:
    """Whether that is faster: not of other layers, strides, patches of one place, few channels.

    Nor is it known of patches less their means.
    """
    if not isinstance(layer, nn.Conv2d) or max(layer.stride) > 1 or max(layer.kernel_size) == 1:
        return False
    return not is_centered(layer) and layer.in_channels // layer.groups >= LEAST_CHANNELS


def patch_gram(layer: nn.Module, inputs: Tensor) -> Tensor | None:
    """The Gram matrix `[g, P, P]` of what a convolution's patches are, in double precision.

    Args:
        layer: Of any kind.
        inputs: `[n, C, H, W]`, what enters it.

    Returns:
        What `rows @ rows.mT` is of `rows = rows_of(layer, inputs)`, but for rounding; None where
        that is as cheap, or not known (`has_patch_gram`).

    Example:
        >>> import torch
        >>> from fedaudit.attacks.evidence.layer_unfolding import rows_of
        >>> layer, inputs = nn.Conv2d(32, 64, 3, padding=1), torch.rand(2, 32, 4, 4)
        >>> rows = rows_of(layer, inputs).double()
        >>> torch.allclose(patch_gram(layer, inputs), rows @ rows.mT)
        True
    """
    if not has_patch_gram(layer):
        return None
    assert isinstance(layer, nn.Conv2d)
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    inputs = inputs.detach()
    if layer.padding_mode != "zeros" and max(left, right, top, bottom):
        inputs = F.pad(inputs, (left, right, top, bottom), mode=layer.padding_mode)
        left = right = top = bottom = 0
    n, _, height, width = inputs.shape
    places = inputs.double().reshape(n, layer.groups, -1, height * width)
    places = places.permute(1, 0, 3, 2).flatten(1, 2)
    gram = (places @ places.mT).view(-1, n, height, width, n, height, width)
    (tall, wide), (far, wider) = layer.kernel_size, layer.dilation
    gram = _sum_diagonals(gram, (3, 6), wide, wider, (left, right))
    gram = _sum_diagonals(gram, (2, 5), tall, far, (top, bottom))
    return gram.flatten(4).flatten(1, 3)


def _sum_diagonals(
    gram: Tensor, sides: tuple[int, int], size: int, dilation: int, padding: tuple[int, int]
) -> Tensor:
    """Σ over a kernel's places of `gram`, moved by as many along both of two equal sides.

    What would come from the padding is 0.
    """
    one, other = sides
    old = gram.shape[one]
    new = old + sum(padding) - dilation * (size - 1)
    shape = list(gram.shape)
    shape[one] = shape[other] = new
    summed = gram.new_zeros(shape)
    for place in range(size):
        shift = dilation * place - padding[0]
        begin, count = max(-shift, 0), min(new, old - shift) - max(-shift, 0)
        if count > 0:
            into = summed.narrow(one, begin, count).narrow(other, begin, count)
            moved = gram.narrow(one, begin + shift, count)
            into.add_(moved.narrow(other, begin + shift, count))
    return summed
