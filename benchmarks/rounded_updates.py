"""What a recording in half precision takes from an attack: images from updates as sent and rounded.

    python benchmarks/rounded_updates.py --targets 4       # some CPU minutes a target

The networks, faces and attack of `subspace.py`: one photo of 64 px, one gradient. Each update is
attacked as it was sent, rounded as `precision="half"` keeps it (11 bits and a power of two of each
tensor), and rounded to bfloat16 (8 bits), which a recording does not do.
"""

import argparse
import time

import torch
from stock_clients import LINES, PAIRS, SIZE, train, update_of
from torch import Tensor

import fedaudit
from fedaudit.captures.format.half_precision import from_half, to_half
from fedaudit.data.openpeople import openpeople
from fedaudit.scoring.image_metrics import PSNR, SSIM


def halved(value: Tensor) -> Tensor:
    """As a recording keeps it, read again."""
    half = to_half(value)
    assert half, "a gradient is finite"
    return from_half(*half)


WAYS = {"as sent": lambda v: v, "half": halved, "bfloat16": lambda v: v.bfloat16().float()}


def main() -> None:
    """Print a line a photo and way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="ResNet-18 eval", help="lines whose names start so")
    parser.add_argument("--targets", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = openpeople(size=SIZE)
    mine = [i for i, person in enumerate(faces.people) if person in PAIRS[0]]
    ssim, psnr = SSIM(), PSNR()
    for line in (line for line in LINES if line.name.startswith(options.only)):
        torch.manual_seed(0)
        model = line.build(8)
        if line.trained:
            train(model, faces, 0)
        model.train(line.training)
        for target in mine[:: max(1, len(mine) // options.targets)][: options.targets]:
            photo = faces.images[target : target + 1]
            sent = update_of(model, photo, torch.tensor([0]))
            for name, way in WAYS.items():
                began = time.process_time()
                update = {n: way(value) for n, value in sent.items()}
                shape = (3, SIZE, SIZE)
                found = fedaudit.attack(
                    model, update, "subspace_matching", image_shape=shape, images=1
                ).images
                print(
                    f"{line.name}, photo {target}, {name}: SSIM {float(ssim(photo, found)):.4f}, "
                    f"PSNR {float(psnr(photo, found)):.1f} dB, {time.process_time() - began:.0f} "
                    "CPU s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
