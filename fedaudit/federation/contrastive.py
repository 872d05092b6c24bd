"""Local training without labels: SimCLR's loss on a client's photos."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.federation.local_training import train_locally


def train_without_labels(task: ClientTask, *, change: bool) -> ClientReturn:
    """One client's round on `task.images` with the network of `task.model`, a `TwoViews`.

    Labels play no part. With `change` each photo is shifted and relit at random before it trains.

    Raises:
        ConfigError: A defense such as DP-SGD needs the gradient of one image.
        DataError: Fewer than two photos: there is nothing to contrast a photo with.
    """
    if task.prepare is not None:
        raise ConfigError(
            "DP-SGD clips the gradient of one image, and the contrastive loss compares the images "
            "of a batch: it has no such gradient, and the guarantee would not hold. Use a "
            "supervised method (solomon_woubie with supervised = true, fedavg), or another defense."
        )
    if len(task.images) < 2:
        raise DataError(
            f"learning without labels compares photos, and this client has {len(task.images)}. "
            "Give it at least two: raise batch_size or [federation] photos."
        )
    images = draw_view(task.images, task.generator) if change else task.images
    labels = torch.zeros(len(images), dtype=torch.long)
    return train_locally(replace(task, images=images, labels=labels))


def draw_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """`images [N, C, H, W]` shifted by up to an eighth, brightness and contrast drawn anew."""
    count, size = len(images), images.shape[-1]
    reach = max(1, size // 8)
    shifts = torch.randint(-reach, reach + 1, (count, 2), generator=generator).tolist()
    frame = F.pad(images, (reach,) * 4, mode="replicate")
    views = torch.stack(
        [
            image[:, reach + y : reach + y + size, reach + x : reach + x + size]
            for image, (y, x) in zip(frame, shifts, strict=True)
        ]
    )
    contrast, brightness = torch.rand(2, count, 1, 1, 1, generator=generator)
    mean = views.mean((1, 2, 3), keepdim=True)
    relit = mean + (0.6 + 0.8 * contrast) * (views - mean) + 0.2 * (brightness - 0.5)
    return torch.clamp(relit, 0, 1)
