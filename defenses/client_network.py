"""The client's own network and photos, for defenses that look at what these give away."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.models.functional import functional_call
from fedaudit.models.soft_labels import loss_on


def received_network(task: ClientTask, returned: ClientReturn) -> nn.Module:
    """The network that the client began the round with, in evaluation mode.

    Batch norm takes its running statistics, so that photos do not depend on each other. What the
    client has never received is as it stands after the round.
    """
    return build(task.model, {**returned.kept, **task.before, **task.kept}).eval()


def all_photos(task: ClientTask) -> Tensor:
    """The client's photos `[N, C, H, W]`, with and without labels."""
    parts = [task.images] if task.unlabelled is None else [task.images, task.unlabelled]
    return torch.cat(parts)


def image_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Each image's own gradient, flat `[N, P]`, and scores `[N, K]`; differentiable in images.

    Args:
        model: In evaluation mode where it has batch norm: images must not see each other.
        images: `[N, C, H, W]`.
        labels: `[N]` int64 or `[N, k]` class probabilities.
        parameters: Where the gradient is taken; the model's own if not given.
    """
    criterion = criterion_of(model)
    if parameters is None:
        parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        scores = functional_call(model, values, (image[None],))
        return loss_on(criterion, scores, label[None]), scores[0]

    each = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0))
    gradients, scores = each(dict(parameters), images, labels)
    return torch.cat([value.reshape(len(images), -1) for value in gradients.values()], 1), scores
