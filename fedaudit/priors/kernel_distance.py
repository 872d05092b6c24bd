"""How alike a prior's faces and photos are as sets: the kernel distance of Bińkowski et al. (2018).

What FID asks, but for small sets: FID is biased by the number of images, this is not.
"""

from torch import Tensor

from fedaudit.scoring.perceptual import deep_features


def kernel_distance(drawn: Tensor, photos: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets, unbiased: 0 or little below for one source.

    By the kernel (x·y / D + 1)³ of AlexNet's last features, as the paper has it of Inception's;
    centered and divided by their deviation over the photos, one for all of them: a feature that
    photos hardly have, divided by its own, would outweigh all others.

    Args:
        drawn: `[N, 3, S, S]` in [0, 1], at least two.
        photos: `[M, 3, S, S]` in [0, 1], at least two.
    """
    theirs = deep_features(photos).double()
    middle, spread = theirs.mean(0), theirs.var(0).mean().sqrt().clamp_min(1e-6)
    x, y = ((deep_features(images).double() - middle) / spread for images in (drawn, photos))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1).pow(3)

    def within(a: Tensor) -> Tensor:
        same = kernel(a, a)
        return (same.sum() - same.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())
