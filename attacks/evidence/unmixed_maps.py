"""Tells the images of a batch apart, by the zeros that rectified maps have.

Of a batch, gradients give mixtures of the images' maps (`common_maps`). A rectifier leaves zeros,
and a mixture that is zero in so many places is hardly one: places drawn at random, one fewer than
images, fix a mixture, and where all of them happen to be zeros of the same image it is that image's
map alone. Dimitrov et al. (NeurIPS 2024, "SPEAR") take a fully connected layer so apart; theirs is
the zero gradient behind the rectifier, here it is the map itself.
"""

import torch
from torch import Tensor

TRIES, DRAWS = 100, 2048
"""Passes, and mixtures that are tried in each: enough for 16 images that are zero in half."""
HOPELESS = 20
"""Passes that have shown no image at all, after which the others are not made."""
LARGEST = 24
"""Images of a batch up to which it is tried."""
PROBES = 512
"""Places at which a mixture is looked at first."""
ZERO = 1e-3
"""Size of a value, in units of the map's root mean square, up to which it counts as zero."""
SPARSE = 0.1
"""Least share of zeros of a map: of a mixture it is as `ZERO`."""
SAME = 0.99
"""Cosine from which two maps are one."""


def unmixed(maps: Tensor) -> Tensor | None:
    """Unit maps `[N, M]` of single images, in any order, out of N mixtures; None without.

    Args:
        maps: Orthonormal rows `[N, M]`.
    """
    count, size = maps.shape
    if count == 1:
        return maps * maps.sum().sign()
    if count > LARGEST:
        return None
    generator = torch.Generator().manual_seed(0)
    probes = maps[:, torch.randperm(size, generator=generator)[:PROBES]]
    single: list[Tensor] = []
    for tried in range(TRIES):
        if tried == HOPELESS and not single:
            return None
        drawn = torch.randint(size, (DRAWS, count - 1), generator=generator)
        # [DRAWS, N]: of each, the mixture that vanishes in the drawn places
        mixed, sizes, _ = torch.linalg.svd(maps[:, drawn].permute(1, 0, 2))
        # Where two images are zero in all of these places, so are all mixtures of the two.
        mixtures = mixed[sizes[:, -1] > ZERO / size**0.5][..., -1]
        zeros = _zeros(mixtures @ probes)
        for mixture in mixtures[zeros > SPARSE]:
            map_ = _refined(mixture, maps)
            known = any(float((map_ @ one).abs()) > SAME for one in single)
            if not known and float(_zeros(map_[None])[0]) > SPARSE:
                single.append(map_)
            if len(single) == count:
                return torch.stack(single)
    return None


def _zeros(maps: Tensor) -> Tensor:
    """Share of each map `[n, M]` that is zero; 0 where it has values of both signs."""
    small = maps.abs() < ZERO * maps.square().mean(1, keepdim=True).sqrt()
    upper, lower = ((sign * maps > 0) & ~small for sign in (1, -1))
    return small.double().mean(1) * ~(upper.any(1) & lower.any(1))


def _refined(mixture: Tensor, maps: Tensor) -> Tensor:
    """The unit map of the mixture that is least in all places where this one is zero."""
    rough = mixture @ maps
    small = rough.abs() < ZERO * rough.square().mean().sqrt()
    better: Tensor = torch.linalg.svd(maps[:, small], full_matrices=False).U[:, -1] @ maps
    return better * better.sum().sign()
