"""Which label goes with which image, once the images are known, from the head's gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.evidence.labels.head_gradient import read_head, unscale
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.class_head import head_inputs
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import ForeignFaceNet

RIDGE = 1e-6
"""On the Gram matrix of what the head sees of the images, relative to its mean diagonal."""
RIDGE_OF_STEPS = 1e-2
"""The same where the weights at each step are nearly known: of sixteen photos of p01 and p02 after
two epochs, two networks, 13 and 9 labels are right of images of SSIM 0.67 and 0.57 by the network
that was broadcast, 15 and 12 so, 15 and 11 with 1e-6; of the true images 14 and 15, 15 and 15."""

LARGEST = 10_000_000
"""Numbers of Gram matrices that are solved at once."""


def labels_of_images(reading: Reading, images: Tensor, reader: InputReader | None = None) -> Tensor:
    """Labels `[N]` of `images` `[N, C, H, W]`; -1 where the head was not shared or cannot be read.

    The head's gradient is Σ_i e_i x_iᵀ, and x_i, what the head sees of image i, is known with the
    image: the upstream gradients e_i are solved for, and of each only the entry of the true class
    is negative (iDLG, Zhao et al. 2020, for batches in any order). After several steps the sum is
    over these, too, and an image has an e_i in each epoch.

    Args:
        reading: Of the update.
        images: All of them.
        reader: Of the network at each step, where that is known.
    """
    nobody = torch.full((len(images),), -1)
    head = read_head(reading.model, reading.target, reading.count, reading.shape)
    if head is None or reading.private:
        return nobody
    everybody = [(reading.model, list(range(len(images))))]
    steps = [(one.model, list(which)) for one, which in reader.moments] if reader else []
    entered = [_entering_head(model, images[which]) for model, which in steps or everybody]
    owners = torch.tensor([place for _, which in steps or everybody for place in which])
    inputs = torch.cat(entered)
    if inputs.shape != (len(owners), head.weight.shape[1]):
        return nobody
    seen, gradient = inputs.double(), head.gradient.double()
    ridge = RIDGE_OF_STEPS if steps else RIDGE
    if head.unit:
        weight = head.weight.double()
        upstream = _upstream_of_unit(
            F.normalize(seen, dim=1), unscale(gradient, weight), F.normalize(weight, dim=1), ridge
        )
    else:
        gram = seen @ seen.T
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        upstream = torch.linalg.solve(gram, seen @ gradient.T)
    each = upstream.new_zeros(len(images), upstream.shape[1])
    labels: Tensor = each.index_add(0, owners.to(each.device), upstream).argmin(1)
    return labels.cpu()


def _upstream_of_unit(seen: Tensor, rows: Tensor, centers: Tensor, ridge: float) -> Tensor:
    """Upstream gradients `[N, K]` of a head that normalizes what it sees and its class centers.

    Row k of the gradient is Σ_i e_ik (x̂_i − cos_ik ŵ_k): what lies along its center is taken out of
    each, so that each class has a Gram matrix of its own. Of an image that is its center no class
    says anything, and e_ik is 0.

    Args:
        seen: `[N, D]`, unit rows.
        rows: `[K, D]`, of the gradient, where centers are of length 1.
        centers: `[K, D]`, unit rows.
        ridge: On the Gram matrices.
    """
    count = len(seen)
    gram = seen @ seen.T + ridge * torch.eye(count).to(seen)
    cosines, sides = centers @ seen.T, rows @ seen.T
    size = max(LARGEST // count**2, 1)
    each = [
        torch.linalg.solve(gram - along[:, :, None] * along[:, None, :], side)
        for along, side in zip(torch.split(cosines, size), torch.split(sides, size), strict=True)
    ]
    return torch.cat(each).T


def _entering_head(model: nn.Module, images: Tensor) -> Tensor:
    """What the head sees of images `[n, C, H, W]`."""
    if not isinstance(model, FaceNet) or isinstance(model, ForeignFaceNet):
        with torch.no_grad():
            return head_inputs(model, images)
    with deterministic(model), torch.no_grad():
        inputs: Tensor = model.embedding(model.features(images))
        return inputs


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
