"""Does a restoration stage after a search help, as GUIDE and DFLeak have one?

    python benchmarks/restoration.py                          # batches of 16, some minutes
    python benchmarks/restoration.py --batch 1 --defense "pruning 0.99" --attack inverting_gradients

A small U-Net (Ronneberger et al. 2015) learns to restore generated faces that were blurred, mixed
with others and made noisy, as reconstructions are. It is then the last stage after an attack on
updates of ORL's people at 32 px, who have tuned nothing of it. Control: the same attack on noise of
the update's norm, restored likewise: what it matches, the restoration has made up. "SFace" and
"dlib" are images re-identified at an FMR of 1e-3; "first" those that come first of 40 to SFace.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
import torch.nn.functional as F
from learned_inversion import DEFENDED, ROUNDS, bench_of
from scoring import Judge, sface_judge
from torch import Tensor, nn

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import kept_faces
from fedaudit.attacks.learned.decoder import teach
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.seeds import draw_seeded, generator_for
from fedaudit.models.bodies import group_norm


class Restorer(nn.Module):
    """Gray images `[N, 1, H, W]` in [0, 1] → restored ones; H and W are multiples of four."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.fine = _pair(1, width)
        self.middle = _pair(width, 2 * width)
        self.coarse = _pair(2 * width, 4 * width)
        self.up_middle = _pair(6 * width, 2 * width)
        self.up_fine = _pair(3 * width, width)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The images plus what the network would change."""
        fine = self.fine(images)
        middle = self.middle(F.avg_pool2d(fine, 2))
        coarse = self.coarse(F.avg_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([middle, F.interpolate(coarse, scale_factor=2)], 1))
        fine = self.up_fine(torch.cat([fine, F.interpolate(middle, scale_factor=2)], 1))
        changed: Tensor = images + self.last(fine)
        return changed


def _pair(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, 1, 1),
        group_norm(outside),
        nn.GELU(),
        nn.Conv2d(outside, outside, 3, 1, 1),
        nn.GELU(),
    )


def degraded(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Faces `[N, 1, H, W]` as searches leave them: with others in them, blurred, noisy."""
    count = len(faces)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    share = uniform(0, 0.4)
    others = faces[torch.randperm(count, generator=generator)]
    mixed = (1 - share) * faces + share * others
    soft = F.avg_pool2d(mixed, 3, 1, 1, count_include_pad=False)
    softer = F.avg_pool2d(soft, 5, 1, 2, count_include_pad=False)
    blur = uniform(0, 2)
    blurred = torch.where(blur < 1, mixed.lerp(soft, blur), soft.lerp(softer, blur - 1))
    grain = torch.randn(faces.shape, generator=generator)
    coarse = F.interpolate(grain[:, :, ::2, ::2], faces.shape[2:], mode="bilinear")
    return (blurred + uniform(0, 0.12) * grain + uniform(0, 0.12) * coarse).clamp(0, 1)


def learn(side: int, faces: int, epochs: int) -> Restorer:
    """A restorer of faces of `side` pixels, and what it makes of pairs that it has not seen."""
    own = kept_faces(Auxiliary(), faces, (1, side, side), grayscale=True, seed=0, cache=None)
    bad = degraded(own, generator_for("restoration", 0))
    restorer = draw_seeded(Restorer, 0)
    began, apart = time.process_time(), faces // 20
    teach(restorer, bad[apart:], own[apart:], epochs=epochs, seed=0)
    spent = time.process_time() - began
    with torch.no_grad():
        errors = [(x - own[:apart]).square().mean() for x in (bad[:apart], restorer(bad[:apart]))]
    before, after = (float(-10 * error.log10()) for error in errors)
    print(f"pairs kept apart: {before:.1f} → {after:.1f} dB; trained in {spent:.0f} CPU s")
    return restorer


def row(
    label: str, captures: Sequence[Capture], found: Sequence[Reconstruction], judges: list[Judge]
) -> None:
    """Print how many of the captures' people are found again."""
    pairs = list(zip(captures, found, strict=True))
    dlib, sface = ([s for c, f in pairs for s in judge.score(c, f)] for judge in judges)
    hits = [f"{sum(bool(s.reidentified) for s in of)}/{len(of)}" for of in (sface, dlib)]
    print(
        f"| {label} | {mean(s.metrics['ssim'] for s in sface):.3f} | {hits[0]} | {hits[1]} | "
        f"{sum(s.rank == 1 for s in sface)} |",
        flush=True,
    )


def main() -> None:
    """Attack, restore, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attack", default="subspace_matching")
    parser.add_argument("--defense", default="none", choices=list(DEFENDED))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--targets", type=int, default=2, help="updates")
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--fresh", action="store_true", help="an untrained network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    restorer = learn(32, options.faces, options.epochs)
    bench = bench_of("face", 0 if options.fresh else ROUNDS)
    faces = bench.simulation.faces
    judges = [Judge.of(faces, bench.simulation.split), sface_judge(faces)]
    attack = create("attacks", options.attack, {})
    captures = [
        bench.capture(target, options.batch, DEFENDED[options.defense])
        for target in range(options.targets)
    ]
    print("| images | SSIM | SFace | dlib | first |\n|---|---|---|---|---|")
    for label in ("attack", "control"):
        found = []
        for number, capture in enumerate(captures):
            seen, noise = capture.seen, generator_for("attack", number)
            if label == "control":
                seen = without_update(seen, generator_for("control", number))
            found.append(attack(seen, generator=noise))
        seconds = mean(one.seconds for one in found)
        row(f"{label}, {seconds:.0f} CPU s an update", captures, found, judges)
        with torch.no_grad():
            restored = [
                replace(one, images=restorer(one.images[:, :1]).expand_as(one.images).clamp(0, 1))
                for one in found
            ]
        row(f"{label}, restored", captures, restored, judges)


if __name__ == "__main__":
    main()
