"""Image metrics as pure functions: two batches `[N, C, H, W]` in [0, 1] → `[N]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from fedaudit.scoring.perceptual import lpips_distance

WANG: Mapping[str, Any] = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1.0,
    "channel_axis": 2,
}
"""Wang's setting of structural similarity, for images `[H, W, C]` in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SSIM:
    """Structural similarity in [-1, 1], higher is more alike (Wang et al. 2004).

    Wang's setting: Gaussian window of σ 1.5 (11 px), no sample covariance, data range 1, mean over
    channels. The window matters: at 32 px, 3 px and 11 px differ by a factor of two.
    """

    title: ClassVar[str] = "SSIM"
    order: ClassVar[int] = 1
    digits: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, original: Tensor, other: Tensor) -> Tensor:
        """`[N]`."""
        arrays = (images.permute(0, 2, 3, 1).numpy() for images in (original, other))
        values = [structural_similarity(a, b, **WANG) for a, b in zip(*arrays, strict=True)]
        return torch.tensor(values, dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class MSE:
    """Mean squared error on [0, 1], lower is more alike."""

    title: ClassVar[str] = "MSE"
    order: ClassVar[int] = 4
    digits: ClassVar[int] = 4
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, original: Tensor, other: Tensor) -> Tensor:
        """`[N]`.

        >>> MSE()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
        tensor([0.2500])
        """
        return (original - other).square().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class PSNR:
    """Peak signal-to-noise ratio in dB on [0, 1], higher is more alike; 100 dB for equal images."""

    title: ClassVar[str] = "PSNR"
    order: ClassVar[int] = 3
    digits: ClassVar[int] = 1
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "dB"
    range: ClassVar[tuple[float, float]] = (0.0, 100.0)

    def __call__(self, original: Tensor, other: Tensor) -> Tensor:
        """`[N]`.

        >>> PSNR()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round()
        tensor([20.])
        """
        return -10 * MSE()(original, other).clamp_min(1e-10).log10()


@dataclass(frozen=True, kw_only=True)
class LPIPS:
    """Learned perceptual distance, lower is more alike (Zhang et al. 2018).

    Args:
        net: "alex" or "vgg". Images below 64 px are resized to 64 px first.
    """

    net: Literal["alex", "vgg"] = "alex"

    title: ClassVar[str] = "LPIPS"
    order: ClassVar[int] = 2
    digits: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __call__(self, original: Tensor, other: Tensor) -> Tensor:
        """`[N]`."""
        return lpips_distance(original, other, self.net)
