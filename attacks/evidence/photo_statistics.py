"""How likely an image is as a photo: Gaussian, by waves whose amplitudes fall with the frequency.

So photos are, whatever they show (Field, JOSA A 1987), and they vary less in color than in
brightness. What is known of an image beside that, if it is linear in the image, makes one image
the likeliest, without a search.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

# Over the 138 photos of p03 … p08 of OpenPeople, at 64 px as at 112 (benchmarks/face_contrast.py).
MEAN = 0.4
"""Of a photo's numbers."""
POWER, VARIANCES = 3.0, (0.22, 0.012, 0.0006)
"""Variance of brightness, red against blue, green against both in a wave of frequency f, by
(1 + f)^-`POWER` and the number of pixels."""
COLORS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
"""Brightness, red against blue, green against both."""
GRAY = 1e-3
"""Factor of the variances of color where a photo is known to be gray."""


def cosines(places: Tensor) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of the places 0, 1, …, a wave a row."""
    count = len(places)
    waves: Tensor = (math.pi / count * (places + 0.5) * places[:, None]).cos() * (2 / count) ** 0.5
    waves[0] /= 2**0.5
    return waves


def color_directions(like: Tensor) -> Tensor:
    """`COLORS`, of length 1, as `[3, 3]` of the type and device of another tensor."""
    return F.normalize(like.new_tensor(COLORS), dim=1)


@dataclass(frozen=True)
class PhotoStatistics:
    """A Gaussian prior of images around `MEAN`.

    Attributes:
        like: `[1, C, H, W]`, a tensor of their size, type and device.
        gray: Their channels are equal.
    """

    like: Tensor
    gray: bool = False

    @property
    def mean(self) -> Tensor:
        """`[1, C, H, W]`."""
        return torch.full_like(self.like, MEAN)

    @cached_property
    def colors(self) -> Tensor:
        """Orthonormal directions of color, a row each."""
        channels = self.like.shape[1]
        if channels != len(COLORS):
            return torch.eye(channels).to(self.like)
        return color_directions(self.like)

    @cached_property
    def variances(self) -> Tensor:
        """Of each wave of each of these, `[C, H, W]`."""
        channels, (height, width) = self.like.shape[1], self.like.shape[2:]
        each = [v * (GRAY if self.gray and k else 1) for k, v in enumerate(VARIANCES)]
        if channels != len(COLORS):
            each = [VARIANCES[0]] * channels
        rows, columns = (torch.arange(n).to(self.like) for n in (height, width))
        falls = (1 + torch.hypot(rows[:, None], columns)) ** -POWER * (height * width)
        return self.like.new_tensor(each)[:, None, None] * falls

    @property
    def pixel_variance(self) -> float:
        """Of a number of an image, on average."""
        return float(self.variances.mean())

    @cached_property
    def _waves(self) -> tuple[Tensor, Tensor]:
        rows, columns = (cosines(torch.arange(n).to(self.like)) for n in self.like.shape[2:])
        return rows, columns

    def unlikeliness(self, deviation: Tensor) -> Tensor:
        """The inverse covariance times a deviation from the mean, both `[1, C, H, W]`."""
        rows, columns = self._waves
        apart = torch.einsum("kc,nchw->nkhw", self.colors, deviation)
        spectrum = rows @ apart @ columns.mT / self.variances
        return torch.einsum("kc,nkhw->nchw", self.colors, rows.mT @ spectrum @ columns)

    def colored(self, waves: Tensor) -> Tensor:
        """A deviation from the mean, `[1, C, H, W]`, of waves in units of what each varies by."""
        rows, columns = self._waves
        apart = rows.mT @ (waves * self.variances.sqrt()) @ columns
        return torch.einsum("kc,nkhw->nchw", self.colors, apart)
