"""The feature maps of a batch one by one, where the first fully connected layer sends their sum.

Its gradient is G = Σ_i a_i f_iᵀ: a_i is the upstream gradient of image i, f_i its feature map. With
the head and the labels known, a_i is a function of f_i, which lets the sum be taken apart by a
fixed-point iteration. Where what enters the head is known of each image, so are the maps.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    FirstFullyConnected,
    find_linear_layer,
    leads_to_head,
)
from fedaudit.models.facenet import FaceNet
from fedaudit.models.soft_labels import loss_on

UNMIXED = 0.02
"""Largest relative residual of G at which a batch counts as taken apart."""


def take_apart(
    first_fc: FirstFullyConnected, model: nn.Module, labels: Tensor, steps: int = 60
) -> FirstFullyConnected:
    """Each image's own feature map, given the head, and labels `[N]` or probabilities `[N, K]`.

    Fixed point of: maps → upstream gradients (through the known head) → maps (least squares). At
    batch 1 only the sign of the map is decided. Unchanged where the iteration does not explain the
    gradient, as with repeated labels or a head that fits the batch already.
    """
    layer = find_linear_layer(model)
    if layer is None or not isinstance(model, FaceNet):
        return first_fc
    if first_fc.known is not None:
        return first_fc  # the head sees the whole maps
    bias = None if layer.bias is None else layer.bias.detach()

    def upstream(outputs: Tensor) -> Tensor:
        outputs = outputs.detach().requires_grad_()
        scores = model.after_first_fc(outputs)
        (grad,) = torch.autograd.grad(loss_on(model.criterion, scores, labels), outputs)
        return grad

    if first_fc.maps is not None and first_fc.upstream is not None:
        # One image: all that is open is the sign of its map, which the head decides.
        agreement = (
            upstream(F.linear(first_fc.maps, first_fc.weight, bias)) * first_fc.upstream
        ).sum()
        return (
            first_fc
            if agreement >= 0
            else replace(first_fc, maps=-first_fc.maps, upstream=-first_fc.upstream)
        )
    if len(torch.unique(labels, dim=0)) < len(labels):
        return first_fc  # images of one class share their a_i nearly: many splits explain the sum
    # A start that knows the labels only: a tiny, even embedding has no opinion about its class.
    toward = upstream(torch.full((len(labels), len(first_fc.gradient)), 1e-3))
    maps = first_fc.span
    for _ in range(steps):
        # Not torch.linalg.lstsq: its result differs from call to call in the last bits.
        maps = torch.linalg.pinv(toward.T) @ first_fc.gradient
        # A flipped map would start the iteration on the wrong side.
        maps = maps * maps.sum(1, keepdim=True).sign()
        toward = upstream(F.linear(maps, first_fc.weight, bias))
    residual = (first_fc.gradient - toward.T @ maps).norm() / first_fc.gradient.norm()
    # Written so that NaN, from a singular system, counts as a failure.
    return replace(first_fc, maps=maps, upstream=toward) if residual < UNMIXED else first_fc


def place_maps(
    first_fc: FirstFullyConnected, model: nn.Module, places: Tensor
) -> FirstFullyConnected:
    """Each image's own feature map, where the head's inputs `places` `[N, D]` are known (`solver`).

    Needs no labels, and minds neither repeated ones nor a head that fits the batch. Unchanged where
    the places, or their directions, do not explain the gradient.
    """
    layer = find_linear_layer(model)
    if layer is None or not isinstance(model, FaceNet) or first_fc.known is not None:
        return first_fc
    if not leads_to_head(model):
        return first_fc
    gradient, span = first_fc.gradient.double(), first_fc.span.double()
    if layer is model.head:
        maps = places.double()
    else:
        if layer.bias is not None:
            places = places - layer.bias.detach()
        maps = places.double() @ torch.linalg.pinv(span @ first_fc.weight.double().T) @ span
    upstream = torch.linalg.pinv(maps.T) @ gradient.T
    residual = (gradient - upstream.T @ maps).norm() / gradient.norm()
    if not residual < UNMIXED:
        return first_fc
    return replace(
        first_fc, maps=maps.to(first_fc.gradient), upstream=upstream.to(first_fc.gradient)
    )
