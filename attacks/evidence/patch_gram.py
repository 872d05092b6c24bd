"""Inner products of all patches of a map, from those of its places.

A patch of k × k places has the inner product with another that is the sum, over its places, of
those of places: ⟨u_p, u_q⟩ = Σ_s ⟨x_{p+s}, x_{q+s}⟩. So the Gram matrix of 3 × 3 patches costs a
ninth of the products, and sums along its diagonals, first in one direction of the image, then in
the other.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# benchmarks/step_cost.py --only ResNet-18 --batch 1 8 --sizes 112: below, sums cost what is saved.
LEAST_CHANNELS = 32
"""Numbers of a place from which on that is faster."""


def patch_gram(layer: nn.Module, inputs: Tensor) -> Tensor | None:
    """The Gram matrix `[g, P, P]` of what a convolution's patches are, in double precision.

    Args:
        layer: Of any kind.
        inputs: `[n, C, H, W]`, what enters it.

    Returns:
        What `rows @ rows.mT` is of `rows = rows_of(layer, inputs)`, but for rounding; None where
        that is as cheap: of other layers, strides, patches of one place and few channels.

    Example:
        >>> from fedaudit.attacks.evidence.layer_inputs import rows_of
        >>> layer, inputs = nn.Conv2d(32, 64, 3, padding=1), torch.rand(2, 32, 4, 4)
        >>> rows = rows_of(layer, inputs).double()
        >>> torch.allclose(patch_gram(layer, inputs), rows @ rows.mT)
        True
    """
    if not isinstance(layer, nn.Conv2d) or max(layer.stride) > 1 or max(layer.kernel_size) == 1:
        return None
    if layer.in_channels // layer.groups < LEAST_CHANNELS:
        return None
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    inputs = inputs.detach()
    if layer.padding_mode != "zeros" and max(left, right, top, bottom):
        inputs = F.pad(inputs, (left, right, top, bottom), mode=layer.padding_mode)
        left = right = top = bottom = 0
    n, _, height, width = inputs.shape
    places = inputs.double().view(n, layer.groups, -1, height * width)
    places = places.permute(1, 0, 3, 2).flatten(1, 2)
    gram = (places @ places.mT).view(-1, n, height, width, n, height, width)
    # Sums run along rows of memory: [g, n, m, h, h', w, w'].
    gram = gram.permute(0, 1, 4, 2, 5, 3, 6)
    (tall, wide), (far, wider) = layer.kernel_size, layer.dilation
    gram = _sum_diagonals(gram, 5, wide, wider, (left, right))
    gram = _sum_diagonals(gram, 3, tall, far, (top, bottom))
    return gram.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def _sum_diagonals(
    gram: Tensor, first: int, size: int, dilation: int, padding: tuple[int, int]
) -> Tensor:
    """Σ over the places of a kernel of `gram`, moved by as many along its axes `first` and next.

    What would come from the padding is 0.
    """
    old = gram.shape[first]
    new = old + sum(padding) - dilation * (size - 1)
    shape = list(gram.shape)
    shape[first : first + 2] = new, new
    summed = gram.new_zeros(shape)
    for place in range(size):
        shift = dilation * place - padding[0]
        begin, end = max(-shift, 0), min(new, old - shift)
        if begin < end:
            into, of = slice(begin, end), slice(begin + shift, end + shift)
            ahead = (slice(None),) * first
            summed[(*ahead, into, into)] += gram[(*ahead, of, of)]
    return summed
