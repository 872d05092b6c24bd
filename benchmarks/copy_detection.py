"""How rarely the judge of copies takes one image for another, and how many originals it finds.

    python benchmarks/copy_detection.py

Digits of MNIST, and tiles of scikit-image's photos, in color. In three rounds a third of the images
that may train is new to the judge altogether, so that its false match rate is tried on images that
calibrated nothing. The other ways to compare images go through the same calibration.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms.functional import gaussian_blur

from fedaudit.core.scenario import Federation
from fedaudit.data.crop import resize, to_tensor
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.picture_files import LabeledPictures
from fedaudit.data.picture_set import labeled_set, mnist_5k
from fedaudit.data.splits import split
from fedaudit.scoring.copy_judge import CopyJudge, add_noise
from fedaudit.scoring.identity import calibrate, rgb
from fedaudit.scoring.perceptual import load_lpips

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
DIGIT, TILE = 28, 48
"""Pixels of a side."""
SETS = (DIGIT, 32, 64, 112)
"""Pixels at which images are compared, the digits first."""
ROUNDS = 3
LEAST_CONTRAST = 0.1
"""Standard deviation of a tile: fainter ones drown in 20 dB of noise, whatever is looked at."""

Embed = Callable[[Tensor], Tensor]


def main() -> None:
    """Print a table of each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=800, help="How many.")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="What compares."
    )
    parser.add_argument("--sets", nargs="+", type=int, choices=SETS, default=list(SETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = ("images", "compared by", "new pairs", "FMR plain", "20 dB", "blurred")
    heads += ("found in 20 dB", "10 dB", "blurred")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for size in options.sets:
        faces = tiles(size) if size > DIGIT else mnist_5k(images=options.digits)
        label = f"{len(faces.people)} {faces.name}, {faces.images.shape[-1]} px"
        for name in options.ways:
            print(f"| {label} | {name} | {' | '.join(tried(faces, WAYS[name]))} |", flush=True)


def tiles(size: int) -> FaceSet:
    """Squares of 48 pixels of photos, side by side; a class is a photo."""
    images, labels = [], []
    for name in PHOTOS:
        photo = Image.fromarray(getattr(skimage.data, name)())
        wide, high = photo.size
        for left in range(0, wide - TILE + 1, TILE):
            for top in range(0, high - TILE + 1, TILE):
                tile = to_tensor([photo.crop((left, top, left + TILE, top + TILE))], size)[0]
                if float(tile.std()) >= LEAST_CONTRAST:
                    images.append(tile)
                    labels.append(name)
    stack = torch.stack(images)
    found = LabeledPictures(tuple(labels), lambda numbers: stack[list(numbers)], research=True)
    return labeled_set("tiles", found, len(labels), "scikit-image")


def tried(faces: FaceSet, learn: Callable[[Tensor], Embed]) -> list[str]:
    """False match rates of new images, and shares of originals found, by what was done to them.

    Each image that may train is new in one of three rounds.
    """
    dealt = split(faces, Federation(clients=1))
    place = {name: k for k, name in enumerate(faces.people)}
    embed = learn(faces.images[[place[name] for name in dealt.held_out]])
    vectors = {
        deed: dict(
            zip(
                dealt.people,
                embed(do(faces.images[[place[name] for name in dealt.people]], dealt.people)),
                strict=True,
            )
        )
        for deed, do in DEEDS.items()
    }
    false: dict[str, list[bool]] = {deed: [] for deed in DEEDS}
    true: dict[str, list[bool]] = {deed: [] for deed in DEEDS}
    for turn in range(ROUNDS):
        new = set(dealt.people[turn::ROUNDS])
        known = [name for name in dealt.people if name not in new]
        gallery = calibrate(
            {name: vectors["plain"][name][None] for name in known},
            {n: torch.stack([vectors["plain"][n], vectors["calibration"][n]]) for n in known},
            fmr=1e-3,
            photos=len(known),
        )
        assert gallery.threshold is not None
        classes = [class_of(name) for name in gallery.people]
        own = {name: k for k, name in enumerate(gallery.people)}
        for deed in DEEDS:
            for name, vector in vectors[deed].items():
                cosines = normalize(vector - gallery.center, dim=0) @ gallery.templates.T
                hits = (cosines > gallery.threshold).tolist()
                if name in own:
                    true[deed].append(hits[own[name]])
                else:
                    rivals = [k for k, label in enumerate(classes) if label == class_of(name)]
                    false[deed] += [hits[k] for k in rivals]
    share = {deed: f"{np.mean(hits):.1%}".replace("%", " %") for deed, hits in true.items()}
    rates = [f"{np.mean(false[deed]):.4f}" for deed in ("plain", "20 dB", "blurred")]
    return [f"{len(false['plain']):,}", *rates, *(share[d] for d in ("20 dB", "10 dB", "blurred"))]


def noise(images: Tensor, names: Sequence[str], decibels: float, draw: str = "trial") -> Tensor:
    """Each image in white noise of its own."""
    pairs = zip(images, names, strict=True)
    return torch.stack([add_noise(image, decibels, f"{draw} {name}") for image, name in pairs])


def blur(images: Tensor, names: Sequence[str]) -> Tensor:
    """As if every pixel were the mean of its neighbors: a Gaussian of a thirtieth of a side."""
    del names
    return gaussian_blur(images, [9, 9], [images.shape[-1] / 32] * 2)


DEEDS: Mapping[str, Callable[[Tensor, Sequence[str]], Tensor]] = {
    "plain": lambda images, names: images,
    "calibration": partial(noise, decibels=20.0, draw="calibration"),
    "20 dB": partial(noise, decibels=20.0),
    "10 dB": partial(noise, decibels=10.0),
    "blurred": blur,
}


def judge(idle: Tensor) -> Embed:
    """What reports use."""
    return CopyJudge().within(CopyJudge().frame(idle))


def pixels(idle: Tensor) -> Embed:
    """Correlation of pixels, whose mean is that of the images that never train."""
    del idle

    def embed(images: Tensor) -> Tensor:
        flat = resize(images, min(32, images.shape[-1])).flatten(1)
        return normalize(flat - flat.mean(1, keepdim=True), dim=1)

    return embed


def ssim(idle: Tensor) -> Embed:
    """What SSIM correlates: pixels without their neighborhood's mean, over its deviation."""
    del idle

    def embed(images: Tensor) -> Tensor:
        mean = gaussian_blur(images, [11, 11], [1.5, 1.5])
        variance = gaussian_blur(images * images, [11, 11], [1.5, 1.5]) - mean * mean
        local = (images - mean) / (variance.clamp_min(0) + 0.03**2).sqrt()
        return normalize(local.flatten(1), dim=1)

    return embed


def lpips(idle: Tensor) -> Embed:
    """LPIPS as a distance of vectors: weighted unit features of AlexNet, of ImageNet's classes."""
    del idle
    network = load_lpips("alex")

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        shown = resize(rgb(images), max(64, images.shape[-1])) * 2 - 1
        taps = []
        for k, tap in enumerate(network.net.forward(network.scaling_layer(shown))):
            weight = getattr(network, f"lin{k}").model[-1].weight.clamp_min(0).sqrt()
            unit = tap / (tap.square().sum(1, keepdim=True).sqrt() + 1e-10)
            taps.append((unit * weight / tap.shape[-1]).flatten(1))
        return torch.cat(taps, 1)

    return lambda images: torch.cat([features(part) for part in torch.split(images, 32)])


WAYS: Mapping[str, Callable[[Tensor], Embed]] = {
    "judge of copies": judge,
    "pixels": pixels,
    "SSIM's features": ssim,
    "LPIPS's features": lpips,
}

if __name__ == "__main__":
    main()
