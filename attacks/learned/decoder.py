"""The networks that draw an image from a feature map or from a vector, and what they are taught."""

import math

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedaudit.core.protocols import Progress
from fedaudit.models.bodies import group_norm

BATCH = 64


class _Refine(nn.Module):
    """A residual pair of 3×3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1),
            group_norm(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width, H, W]` → the same shape."""
        y: Tensor = self.layers(x)
        return x + y


class MapDecoder(nn.Module):
    """Feature maps `[N, C, h, w]` → images `[N, c, H, W]` in [0, 1].

    Doubles the map until half the image's size, then pixels are shuffled out of channels: most of
    the work is done at low resolution, where it is cheap. A 1×1 map is spread to 4×4 first.

    Args:
        channels: C.
        size: `(h, w)`.
        shape: `(c, H, W)` of the images.
        width: Channels at the lowest resolution; halved at each doubling, 48 at least.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, channels: int, size: tuple[int, int], shape: tuple[int, int, int], width: int = 128
    ) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        layers: list[nn.Module] = []
        if min(size) < 4:
            layers.append(nn.ConvTranspose2d(channels, width, 4))
            size = (size[0] + 3, size[1] + 3)
        else:
            layers.append(nn.Conv2d(channels, width, 3, 1, 1))
        layers.append(_Refine(width))
        while max(size) * 4 <= max(shape[1:]):
            narrower = max(48, width // 2)
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, narrower, 3, 1, 1),
                _Refine(narrower),
            ]
            width, size = narrower, (size[0] * 2, size[1] * 2)
        layers += [
            group_norm(width),
            nn.GELU(),
            nn.Conv2d(width, 4 * shape[0], 3, 1, 1),
            nn.PixelShuffle(2),
        ]
        self.layers = nn.Sequential(*layers)

    def standardize(self, maps: Tensor) -> None:
        """Take mean and spread of each channel from training maps `[N, C, h, w]`."""
        self.mean.copy_(maps.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(1 / (maps.std((0, 2, 3))[:, None, None] + 1e-6))

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        images: Tensor = self.layers((maps - self.mean) * self.scale)
        if images.shape[2:] != self.shape[1:]:
            images = F.interpolate(images, self.shape[1:], mode="bilinear", align_corners=False)
        return torch.sigmoid(images)


class VectorDecoder(nn.Module):
    """Vectors `[N, D]` → `[N, B, c, H, W]` in [0, 1], the images of a batch of B.

    Args:
        dim: D.
        shape: `(c, H, W)`.
        batch: B.
        hidden: Width of the hidden layers.
        plane: `(C, h, w)` of a feature map that the first entries of the vector are; it also goes
            to the drawing directly, as a map. None where they are none.
    """

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        batch: int = 1,
        hidden: int = 768,
        plane: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.batch, self.width, self.plane = shape, batch, 128, plane
        self.across = nn.Conv2d(plane[0], batch * self.width, 1) if plane else None
        self.mix = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, batch * self.width * 16),
        )
        self.draw = MapDecoder(self.width, (4, 4), shape, width=128)

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        maps = self.mix(vectors).view(len(vectors), -1, 4, 4)
        if self.across is not None and self.plane is not None:
            first = vectors[:, : math.prod(self.plane)].view(-1, *self.plane)
            maps = maps + F.adaptive_avg_pool2d(self.across(first), 4)
        maps = maps.view(-1, self.width, 4, 4)
        images: Tensor = self.draw(maps)
        return images.view(len(vectors), self.batch, *self.shape)


def _window(size: int = 7, sigma: float = 1.5) -> Tensor:
    at = torch.arange(size) - size // 2
    bell = torch.exp(-at.square() / (2 * sigma**2))
    return torch.outer(bell, bell) / bell.sum() ** 2


def unlikeness(drawn: Tensor, true: Tensor) -> Tensor:
    """What a decoder is taught to make small, an image: `[N]`, 0 for equal images.

    1 − SSIM (Wang et al. 2004; a narrow window), plus the absolute error of pixels and of their
    differences, so that brightness, structure and edges all count. `[N, C, H, W]` in [0, 1].
    """
    channels = drawn.shape[1]
    window = _window().to(drawn).expand(channels, 1, -1, -1)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=channels)

    one, two = blur(drawn), blur(true)
    both = one * two
    spread = blur(drawn.square()) + blur(true.square()) - one.square() - two.square()
    covariance = blur(drawn * true) - both
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * both + c1) * (2 * covariance + c2)
    ssim = ssim / ((one.square() + two.square() + c1) * (spread + c2))
    off = drawn - true
    edges = off.diff(dim=2).abs().flatten(1).mean(1) + off.diff(dim=3).abs().flatten(1).mean(1)
    return 1 - ssim.flatten(1).mean(1) + 2 * off.abs().flatten(1).mean(1) + edges


def teach(
    decoder: nn.Module,
    inputs: Tensor,
    images: Tensor,
    *,
    epochs: int,
    seed: int,
    lr: float = 2e-3,
    progress: Progress | None = None,
) -> int:
    """Train `inputs[i]` → images like `images[i]` in place with AdamW; returns the steps made.

    The rate rises over a tenth and falls as a cosine; deterministic under `seed`. Images are `[M,
    C, H, W]`, or `[M, B, C, H, W]` for batches, whose order is taken as the one that suits the
    decoder (Hungarian loss).
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    decoder.train()
    count = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout has no generator of its own
        for _ in range(epochs):
            for which in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
                output, true = decoder(inputs[which].float()), images[which].float()
                loss = (_set_loss if true.dim() == 5 else unlikeness)(output, true).mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                count += 1
                if progress and (count % 10 == 0 or count == steps):
                    progress(count, steps, float(loss.detach()))
    decoder.eval().requires_grad_(False)
    return count


def _set_loss(output: Tensor, true: Tensor) -> Tensor:
    """`unlikeness` under the assignment of least squared error; `[n, B, C, H, W]` each → `[n]`."""
    count, batch = output.shape[:2]
    if batch > 1:
        with torch.no_grad():
            costs = torch.cdist(true.flatten(2), output.flatten(2)).square()
        order = torch.stack(
            [torch.as_tensor(linear_sum_assignment(c.numpy())[1]) for c in costs.cpu()]
        )
        output = output[torch.arange(count)[:, None], order]
    return unlikeness(output.flatten(0, 1), true.flatten(0, 1)).view(count, batch).mean(1)
