"""Which label goes with which image, once the images are known, from the head's gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_gradient import read_head, unscale
from fedaudit.attacks.evidence.layer_inputs import deterministic
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.class_head import head_inputs
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import ForeignFaceNet

RIDGE = 1e-6
"""On the Gram matrix of what the head sees of the images, relative to its mean diagonal."""


def labels_of_images(reading: Reading, images: Tensor) -> Tensor:
    """Labels `[N]` of `images` `[N, C, H, W]`; -1 where the head was not shared or cannot be read.

    The head's gradient is Σ_i e_i x_iᵀ, and x_i, what the head sees of image i, is known with the
    image: the upstream gradients e_i are solved for, and of each only the entry of the true class
    is negative (iDLG, Zhao et al. 2020, for batches in any order).
    """
    nobody = torch.full((len(images),), -1)
    head = read_head(reading.model, reading.target, reading.count, reading.shape)
    if head is None or reading.private:
        return nobody
    if not isinstance(reading.model, FaceNet) or isinstance(reading.model, ForeignFaceNet):
        with torch.no_grad():
            inputs = head_inputs(reading.model, images)
    else:
        with deterministic(reading.model), torch.no_grad():
            inputs = reading.model.embedding(reading.model.features(images))
    if inputs.shape != (len(images), head.weight.shape[1]):
        return nobody
    seen, gradient = inputs.double(), head.gradient.double()
    if head.unit:
        seen, gradient = F.normalize(seen, dim=1), unscale(gradient, head.weight.double())
    gram = seen @ seen.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    labels: Tensor = torch.linalg.solve(gram, seen @ gradient.T).argmin(1)
    return labels.cpu()


def in_order_of_labels(reading: Reading, images: Tensor) -> Tensor:
    """The images `[N, C, H, W]` in the order of the labels, where these are theirs; else as is."""
    if reading.labels is None or len(images) == 1:
        return images
    own = labels_of_images(reading, images).to(reading.labels.device)
    if not torch.equal(own.sort().values, reading.labels.sort().values):
        return images
    result = torch.empty_like(images)
    result[reading.labels.argsort(stable=True)] = images[own.argsort(stable=True)]
    return result
