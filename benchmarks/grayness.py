"""How often photos are taken for gray under noise: color ones (an error), and gray ones (a help).

Run: python benchmarks/grayness.py [--data openpeople] [--photos 40] [--draws 5]

Gradients of single photos on the fresh `face` network at 32 px, with Gaussian noise on every entry
whose norm over all parameters is a multiple of the gradient's; `attacks.evidence.grayscale` knows
its standard deviation. Its threshold was chosen on the synthetic set. Prints a table; a minute.
"""

import argparse

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.grayscale import is_gray
from fedaudit.attacks.generators.face_generator import LUMINANCE
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.seeds import generator_for
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.stats.intervals import clopper_pearson

SIZE, CLASSES = 32, 30
TIMES = (0.1, 0.3, 1.0, 3.0, 10.0)


def gradient(model: nn.Module, image: Tensor, label: int) -> dict[str, Tensor]:
    """By parameter name, of one image `[1, C, H, W]`."""
    named = dict(model.named_parameters())
    loss = criterion_of(model)(model(image), torch.tensor([label]))
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def main() -> None:
    """Print how many of all photos and draws were taken for gray."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="openpeople")
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    color = create("data", options.data, {"size": SIZE}).images[: options.photos]
    weights = torch.tensor(LUMINANCE).view(1, 3, 1, 1)
    gray = (color * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    model = build(ModelSpec("face", {"classes": CLASSES, "image_size": SIZE}), seed=0).eval()
    print(f"| noise's norm | color taken for gray ({options.data}) | gray taken for gray |")
    print("|---|---|---|")
    for times in TIMES:
        cells = []
        for kind, images in (("color", color), ("gray", gray)):
            hits = 0
            for k, image in enumerate(images):
                exact = gradient(model, image[None], k % CLASSES)
                flat = torch.cat([g.flatten() for g in exact.values()])
                std = times * float(flat.norm()) / len(flat) ** 0.5
                for draw in range(options.draws):
                    noise = generator_for("grayness", kind, k, draw, times)
                    seen = {
                        name: g + std * torch.randn(g.shape, generator=noise)
                        for name, g in exact.items()
                    }
                    hits += is_gray(model, seen, noise=lambda _, std=std: std)  # type: ignore[misc]
            count = len(images) * options.draws
            low, high = clopper_pearson(hits, count)
            cells.append(f"{hits} of {count} ({100 * low:.0f}–{100 * high:.0f} %)")
        print(f"| {times:g} × the gradient's | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
