"""How clients change photos at random before each step, as recognition networks are trained."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from fedaudit.core.training import Augmentation

MARGIN = 8
"""A crop moves by up to one part in `MARGIN` of the image: 4 of 32 pixels, as is usual."""
JITTER = 0.2
"""Share by which brightness, contrast and saturation vary."""
TRANSFORMS: Mapping[Augmentation, Callable[[Sequence[int]], v2.Transform]] = {
    "flip": lambda size: v2.RandomHorizontalFlip(),
    "crop": lambda size: v2.RandomCrop(list(size), padding=-(-min(size) // MARGIN)),
    "jitter": lambda size: v2.ColorJitter(JITTER, JITTER, JITTER),
}
"""By name, of images of a size `(H, W)`; torchvision's, a crop with black beyond the border."""


def augment(images: Tensor, kinds: Sequence[Augmentation]) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1], each changed by draws of its own, in the order of `kinds`.

    Draws come from torch's global generator, as those of dropout do: seed it.

    Example:
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     augment(torch.rand(2, 3, 32, 32), ["flip", "crop", "jitter"]).shape
        torch.Size([2, 3, 32, 32])
    """
    if not kinds:
        return images
    change = v2.Compose([TRANSFORMS[kind](images.shape[-2:]) for kind in kinds])
    return torch.stack([change(image) for image in images])
