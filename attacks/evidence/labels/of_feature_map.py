"""The label of one image, by its feature map and all of the gradient that follows the map."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    FirstFullyConnected,
    find_linear_layer,
)
from fedaudit.models.facenet import FaceNet


def likeliest_label(
    first_fc: FirstFullyConnected,
    model: nn.Module,
    target: Mapping[str, Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """`[1]`, the label under which one image's known map explains most of what follows the body.

    Noise moves each row of the head's gradient, and pruning leaves out most of them; all together,
    with the upstream gradient at the first fully connected layer, tell classes apart much longer.
    The best factor is taken for each class, as the length of the map is not known.
    """
    layer = find_linear_layer(model)
    assert first_fc.maps is not None
    assert isinstance(model, FaceNet)
    assert layer is not None
    tail = {n: p for n, p in model.named_parameters() if n in target and not n.startswith("body.")}
    with torch.no_grad():  # heads of other people's networks have names of their own
        classes = model.after_first_fc(F.linear(first_fc.maps, layer.weight, layer.bias)).shape[1]
    best, likeliest = -1.0, 0
    for label in range(classes):
        outputs = F.linear(first_fc.maps, layer.weight, layer.bias)
        scores = model.after_first_fc(outputs)
        loss = model.criterion(scores, torch.tensor([label], device=scores.device))
        slopes = torch.autograd.grad(loss, list(tail.values()), allow_unused=True)
        pairs = [(s, target[n]) for s, n in zip(slopes, tail, strict=True) if s is not None]
        pairs = [(s * (t != 0), t) for s, t in pairs] if sparse else pairs
        dot = float(torch.stack([(s * t).sum() for s, t in pairs]).sum())
        length = float(torch.stack([s.square().sum() for s, _ in pairs]).sum().sqrt())
        if length and dot / length > best:
            best, likeliest = dot / length, label
    return torch.tensor([likeliest])
