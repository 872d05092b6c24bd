"""A layer as one matrix W that it applies to many rows, as unfolding gives them (im2col).

Rows u_p are patches of a map, tokens, or vectors. The weight's gradient is G = Σ_p δ_p u_pᵀ, so its
rows lie in the span of the u_p. `rows_of` gives these, `matrices_of` brings G into that form.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

READABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers whose gradient has the form above, unless they do something else with their weight."""


class Applied(nn.Module):
    """Stands for the layer of a matrix that has none, which a call applies (`matrix_calls`).

    Args:
        columns: The matrix is `[F, r]`, as `inputs @ matrix` takes it, and not `[r, F]`.
    """

    def __init__(self, *, columns: bool = False) -> None:
        super().__init__()
        self.columns = columns


class Called(nn.Conv2d):
    """Stands for the layer of a weight that a network convolves with by itself.

    Args:
        weight: `[r, C, h, w]`, which is not kept.
        stride: As `F.conv2d` takes it, like the rest.
        padding: Likewise.
        dilation: Likewise.
        groups: Likewise.

    Attributes:
        centered: Each row of the weight's gradient has a mean of zero, whatever enters: it lies in
            the span of patches less their means.
    """

    def __init__(self, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int):
        rows, channels, *size = weight.shape
        height, width = size
        super().__init__(
            channels * groups,
            rows,
            (height, width),
            stride,
            padding,
            dilation,
            groups,
            bias=False,
            device="meta",
        )
        self.centered = False


# With 1e-9 a photo through a pre-trained MobileFaceNet misses its own spans by 8e-4, with 1e-11 by
# 8e-6; four of p01 and p02 end at SSIM 0.940 to 0.950 and 0.955 to 0.964, with 1e-12 as with 1e-11.
RIDGE = 1e-11
"""On the Gram matrix of rows, relative to its mean diagonal."""


def rows_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    """The rows u_p that a layer applies its matrix to, `[groups, positions, width]`.

    By `unfold` also where a patch is one place: it sends slopes back in the order of memory in
    which torch's batch norm takes those of a single image. (Of another order, as views give it, it
    makes wrong slopes, as of torch 2.13.)
    """
    if isinstance(layer, nn.Conv2d):
        n, size, g = len(inputs), layer.kernel_size, layer.groups
        pad = layer._reversed_padding_repeated_twice
        if any(pad):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            inputs = F.pad(inputs, pad, mode=mode)
        patches = F.unfold(inputs, size, layer.dilation, 0, layer.stride)
        split = patches.view(n, g, -1, patches.shape[2])
        rows = split.permute(1, 2, 0, 3).flatten(2).mT
        return rows - rows.mean(2, keepdim=True) if is_centered(layer) else rows
    if isinstance(layer, nn.ConvTranspose2d):
        g = layer.groups
        split = F.unfold(inputs, 1).view(len(inputs), g, inputs.shape[1] // g, -1)
        return split.permute(1, 0, 3, 2).flatten(1, 2)
    return inputs.reshape(1, -1, inputs.shape[-1])


def matrices_of(layer: nn.Module, gradient: Tensor) -> Tensor:
    """A weight's gradient as `[groups, rows, width]`, whose rows lie in the span of `rows_of`."""
    if isinstance(layer, nn.Conv2d):
        return gradient.reshape(layer.groups, gradient.shape[0] // layer.groups, -1)
    if isinstance(layer, nn.ConvTranspose2d):
        return gradient.reshape(layer.groups, gradient.shape[0] // layer.groups, -1).mT
    return gradient.mT[None] if has_columns(layer) else gradient[None]


def has_columns(layer: nn.Module) -> bool:
    """Whether a layer's weight has a column where other layers' has a row."""
    return isinstance(layer, nn.ConvTranspose2d) or (isinstance(layer, Applied) and layer.columns)


def is_centered(layer: nn.Module) -> bool:
    """Whether a layer's gradient says nothing of the mean of each row that enters it."""
    return isinstance(layer, Called) and layer.centered


def share_outside(matrix: Tensor, rows: Tensor) -> float:
    """Share of the square of `matrix` `[g, r, F]` outside of the span of `rows` `[g, P, F]`."""
    matrix, rows = matrix.double(), rows.double()
    gram = rows @ rows.mT
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-300)
    gram = gram + RIDGE * scale * torch.eye(gram.shape[1]).to(gram)
    inside = torch.linalg.solve(gram, rows @ matrix.mT).mT @ rows
    return float((matrix - inside).square().sum() / matrix.square().sum().clamp_min(1e-300))
