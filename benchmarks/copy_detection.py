"""How rarely the judge of copies takes one image for another, and how many originals it finds.

    python benchmarks/copy_detection.py

Digits of MNIST, and crops of scikit-image's photos, in color: in each set a third of the images is
new to the judge altogether, so that its false match rate is tried on images that calibrated
nothing. The other ways to compare images go through the same calibration.
"""

import argparse
from collections.abc import Callable, Mapping
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
LEAST_CONTRAST = 0.1
"""Standard deviation of a crop: fainter ones drown in 20 dB of noise, whatever is looked at."""

Embed = Callable[[Tensor], Tensor]


def main() -> None:
    """Print a table of each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600, help="Of each set.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| images | compared by | FMR, plain | 20 dB | blurred | found, 20 dB | 10 dB | blurred |")
    print("|---|---|---|---|---|---|---|---|")
    for faces in (mnist_5k(images=options.images), crops(options.images, 32), crops(options.images, 64)):
        side = faces.images.shape[-1]
        for name, learn in WAYS.items():
            print(f"| {faces.name}, {side} px | {name} | {' | '.join(tried(faces, learn))} |", flush=True)


def crops(count: int, size: int) -> FaceSet:
    """Squares of photos, of any size and place; a class is a photo."""
    draw, images, labels = np.random.default_rng(0), [], []
    while len(images) < count:
        name = PHOTOS[len(images) % len(PHOTOS)]
        photo = Image.fromarray(getattr(skimage.data, name)())
        side = int(draw.integers(96, min(photo.size) // 2))
        left, top = (int(draw.integers(0, most - side)) for most in photo.size)
        crop = to_tensor([photo.crop((left, top, left + side, top + side))], size)[0]
        if float(crop.std()) >= LEAST_CONTRAST:
            images.append(crop)
            labels.append(name)
    stack = torch.stack(images)
    found = LabeledPictures(tuple(labels), lambda numbers: stack[list(numbers)], research=True)
    return labeled_set("crops", found, count, "scikit-image")


def tried(faces: FaceSet, learn: Callable[[Tensor], Embed]) -> list[str]:
    """False match rates of new images, and shares of originals found, by what was done to them."""
    dealt = split(faces, Federation(clients=1))
    new = set(dealt.people[::3])
    place = {name: k for k, name in enumerate(faces.people)}
    known = [name for name in dealt.people if name not in new]
    embed = learn(faces.images[[place[name] for name in dealt.held_out]])
    plain = embed(faces.images[[place[name] for name in known]])
    noisy = embed(noise(faces.images[[place[name] for name in known]], known, 20.0, "calibration"))
    gallery = calibrate(
        {name: plain[k : k + 1] for k, name in enumerate(known)},
        {name: torch.stack([plain[k], noisy[k]]) for k, name in enumerate(known)},
        fmr=1e-3,
        photos=len(known),
    )
    assert gallery.threshold is not None
    threshold, strangers = gallery.threshold, sorted(new)
    own = {name: k for k, name in enumerate(gallery.people)}

    def scores(names: list[str], do: Callable[[Tensor, list[str]], Tensor]) -> Tensor:
        vectors = embed(do(faces.images[[place[name] for name in names]], names))
        return normalize(vectors - gallery.center, dim=1) @ gallery.templates.T

    same = torch.tensor([[class_of(a) == class_of(b) for b in gallery.people] for a in strangers])
    deeds = {"plain": lambda x, _: x, "20": partial(noise, decibels=20.0), "10": partial(noise, decibels=10.0), "blur": blur}
    false = [scores(strangers, deeds[d])[same] > threshold for d in ("plain", "20", "blur")]
    true = [
        scores(known, deeds[d])[range(len(known)), [own[name] for name in known]] > threshold
        for d in ("20", "10", "blur")
    ]
    rates = [f"{float(hits.float().mean()):.4f} of {len(hits):,}" for hits in false]
    return rates + [f"{float(hits.float().mean()):.1%}".replace("%", " %") for hits in true]


def noise(images: Tensor, names: list[str], decibels: float, draw: str = "trial") -> Tensor:
    """Each image in white noise of its own."""
    return torch.stack([add_noise(x, decibels, f"{draw} {n}") for x, n in zip(images, names, strict=True)])


def blur(images: Tensor, names: list[str]) -> Tensor:
    """As if every pixel were the mean of its neighbors: a Gaussian of a thirtieth of a side."""
    del names
    return gaussian_blur(images, [9, 9], [images.shape[-1] / 32] * 2)


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
        return normalize(((images - mean) / (variance.clamp_min(0) + 0.03**2).sqrt()).flatten(1), dim=1)

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
