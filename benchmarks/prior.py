"""Does the face generator help a search by spans? Pixels alone against latents and inner maps.

    python benchmarks/prior.py                                  # about 5 CPU minutes
    python benchmarks/prior.py --batch 4 --train --targets 1    # batch norm in training mode
    python benchmarks/prior.py --data orl --only "spans: pixels" "spans: inner maps, then pixels"
    python benchmarks/prior.py --size 112 --targets 1

torchvision's ResNet-18, trained on everybody but the two people who are attacked (p09 and p10 of
OpenPeople, the last two of ORL), whom no setting was chosen on; that was p01 and p02. Every line
makes as many steps as `subspace_matching` does before it mends, and then, where pixels are free at
the end, mends and polishes as that does; `gradient` is `gan_inversion` without spans, with its own
steps. "First of ten" is by SFace.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
from stock_clients import resnet, train, update_of
from ten_people import Judge, batches

import fedaudit
from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, FaceGenerator
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.schedules.grids_in_turn import WHOLE_MAPS_FIRST, grids_in_turn
from fedaudit.attacks.search.schedules.span_stages import SPAN_FADING
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import FeatureMaps, Latent
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair


def lines(batch: int) -> dict[str, MatchingAttack]:
    """Attacks by name; of a batch, pixels are searched as each photo's own maps allow."""
    pixels = subspace_matching()
    search, *end = pixels.stages  # mends, then L-BFGS
    every = search.steps
    shared = Stage(
        varies=Latent(), steps=1, lr=0.1, total_variation=0.0, fading=SPAN_FADING, match="spans"
    )

    def latent(steps: int) -> Stage:
        varies = Latent(candidates=64)
        return replace(shared, varies=varies, steps=steps, square_norm=LATENT_PRIOR)

    def inner(stage: int, steps: int) -> Stage:
        return replace(shared, varies=FeatureMaps(stage=stage), steps=steps, lr=0.05)

    def freed(steps: int) -> tuple[Stage, ...]:
        one = replace(search, varies=Pixels(start="previous"), steps=steps)
        return (one, *end) if batch == 1 else grids_in_turn(one, WHOLE_MAPS_FIRST)

    def generated(*stages: Stage) -> MatchingAttack:
        return replace(pixels, stages=stages, prior=FaceGenerator())

    return {
        "gradient: latent, inner maps, pixels": gan_inversion(spans_first=False),
        "spans: pixels": pixels,
        "spans: latent": generated(latent(every)),
        "spans: latent, then pixels": generated(latent(every // 4), *freed(every - every // 4)),
        "spans: inner maps": generated(
            latent(every // 5), inner(2, every // 4), inner(3, every - every // 5 - every // 4)
        ),
        "spans: inner maps, then pixels": generated(
            latent(every // 8), inner(3, every // 4), *freed(every - 3 * every // 8)
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a row for each line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("openpeople", "orl"), default="openpeople")
    parser.add_argument("--people", nargs=2, help="who is attacked; the last two if not given")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--train", action="store_true", help="batch norm in training mode")
    parser.add_argument("--targets", type=int, default=2, help="batches")
    parser.add_argument("--only", nargs="*", default=list(lines(1)), choices=lines(1))
    options = parser.parse_args(arguments)
    every = lines(options.batch)
    torch.set_num_threads(1)
    size = options.size
    faces = (openpeople if options.data == "openpeople" else orl)(size=size)
    people = sorted(set(faces.people))
    attacked = options.people or people[-2:]
    judge = Judge(faces)
    torch.manual_seed(0)
    model = resnet(18)(len(people) - 2)
    train(model, faces, 0, attacked)
    model.train(options.train)
    every_batch = list(batches(faces, options.batch, options.targets, 0, attacked))
    print("| search | SSIM (least) | PSNR | first of ten | distance left | CPU s |")
    print("|---|---|---|---|---|---|")
    for name in options.only:
        rows = []
        for seed, chosen in enumerate(every_batch):
            images = faces.images[chosen]
            labels = torch.arange(options.batch) % (len(people) - 2)
            update = update_of(model, images, labels)
            began = time.process_time()
            rebuilt = fedaudit.attack(
                model,
                update,
                every[name],
                images=options.batch,
                image_shape=(3, size, size),
                seed=seed,
            )
            spent = time.process_time() - began
            order = list(pair(images, labels, rebuilt.images, torch.full_like(labels, -1)))
            found = rebuilt.images[order]
            known = judge.first(found, chosen)
            score = float(SSIM()(images, found).mean()), float(PSNR()(images, found).mean())
            rows.append((*score, mean(known), rebuilt.objective, spent))
        ssim, psnr, first, left, seconds = (mean(column) for column in zip(*rows, strict=True))
        least = min(row[0] for row in rows)
        print(
            f"| {name} | {ssim:.2f} ({least:.2f}) | {psnr:.1f} | {first:.2f} | {left:.0e} | "
            f"{seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
