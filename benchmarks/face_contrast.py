"""What other people's photos say of a photo's colors, and how well of its contrast.

    python benchmarks/face_contrast.py            # some seconds
    python benchmarks/face_contrast.py --size 112

Prints the constants of `attacks/search/image_priors.py`, from the photos of p03 to p08 of
OpenPeople: mean and deviation of each color, the highlights, a value that so many of a photo's
numbers are less than, and the total variation; and those of
`attacks/evidence/photo_statistics.py`: the mean of all, and how much photos vary in waves of each
octave, times (1 + f)³. Then, of each person of p01 to p08 by the seven others, how wrong the
contrast of a photo is that each of them tells (root mean square); and how wrong that of ORL's
photos, which others took, by those of p03 to p08. p09 and p10, on whom `benchmarks/subspace.py`
reports, take no part.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedaudit.attacks.evidence.photo_statistics import VARIANCES, PhotoStatistics, cosines
from fedaudit.attacks.search.image_priors import BELOW_HIGHLIGHT, total_variation
from fedaudit.data.face_set import FaceSet
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl

KNOWN = ("p03", "p04", "p05", "p06", "p07", "p08")
ASKED = ("p01", "p02", *KNOWN)
QUANTILES = (0.9, 0.95, 0.98, 0.99, 1.0)


def photos_of(faces: FaceSet, people: Sequence[str]) -> Tensor:
    """`[n, C, H, W]`."""
    return faces.images[[k for k, person in enumerate(faces.people) if person in people]]


def colors(images: Tensor) -> Tensor:
    """Mean and deviation of each color of `[n, C, H, W]`; `[n, 2 C]`."""
    return torch.cat([images.mean((2, 3)), images.flatten(2).std(2)], 1)


def highlights(share: float) -> Callable[[Tensor], Tensor]:
    """What so much of the numbers of each image is less than; `[n, 1]`."""
    return lambda images: images.flatten(1).quantile(share, 1)[:, None]


def spectrum(images: Tensor) -> list[tuple[int, list[float]]]:
    """Of each octave of waves, from so many a side, what `VARIANCES` are of each color."""
    prior = PhotoStatistics(images[:1].double())
    rows, columns = (cosines(torch.arange(n).double()) for n in images.shape[2:])
    apart = torch.einsum("kc,nchw->nkhw", prior.colors, images.double() - images.mean())
    waves = (rows @ apart @ columns.mT).square().mean(0)
    share = waves / prior.variances * torch.tensor(VARIANCES)[:, None, None]
    frequency = torch.hypot(
        *torch.meshgrid(*(torch.arange(n).double() for n in share.shape[1:]), indexing="ij")
    )
    octaves = [2**k for k in range(16) if 2**k < len(rows)]
    each = [(frequency >= start) & (frequency < 2 * start) for start in octaves]
    return [(k, share[:, part].mean(1).tolist()) for k, part in zip(octaves, each, strict=True)]


def misses(usual: Tensor, own: Tensor) -> Tensor:
    """By how much the factors differ from 1 that bring `[n, k]` nearest to what is usual, `[k]`."""
    return (own * usual).sum(1) / own.square().sum(1) - 1


def error(faces: FaceSet, measure: Callable[[Tensor], Tensor]) -> float:
    """Root mean square of what each person's photos miss by the mean of the others'."""
    missed = []
    for person in ASKED:
        others = [other for other in ASKED if other != person]
        usual = measure(photos_of(faces, others)).mean(0)
        missed.append(misses(usual, measure(photos_of(faces, [person]))))
    return float(torch.cat(missed).square().mean().sqrt())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the constants and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    size = parser.parse_args(arguments).size
    faces, elsewhere = openpeople(size=size), orl(size=size).images
    known = photos_of(faces, KNOWN)
    pooled = known.transpose(0, 1).flatten(1)
    print(f"{len(known)} photos of {', '.join(KNOWN)}")
    print("mean", *(f"{value:.3f}" for value in pooled.mean(1)))
    print("deviation", *(f"{value:.3f}" for value in pooled.std(1)))
    print(f"mean of all {float(pooled.mean()):.3f}")
    varied = torch.stack([total_variation(image[None]) for image in known])
    print(f"total variation {float(varied.mean()):.4f} (deviation {float(varied.std()):.4f})")
    for start, each in spectrum(known):
        print(f"waves from {start}:", *(f"{value:.4f}" for value in each))
    for name, images in (("highlights", known), ("highlights of ORL", elsewhere)):
        bright = highlights(BELOW_HIGHLIGHT)(images)
        print(f"{name} {float(bright.mean()):.3f} (deviation {float(bright.std()):.3f})")
    print("\n| contrast told by | OpenPeople: wrong by | ORL: wrong by |\n|---|---|---|")
    ways = {"mean and deviation of each color": colors}
    ways |= {f"the value that {q:.0%} are less than": highlights(q) for q in QUANTILES}
    for name, measure in ways.items():
        there = misses(measure(known).mean(0), measure(elsewhere)).square().mean().sqrt()
        print(f"| {name} | {error(faces, measure):.1%} | {float(there):.1%} |")


if __name__ == "__main__":
    main()
