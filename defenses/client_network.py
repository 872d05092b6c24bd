"""The client's own network and photos, for defenses that look at them after training."""

import torch
from torch import Tensor, nn

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.models.zoo import build


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
