"""The weight of the total variation by size and color: `usual_variation` against other weights.

    python benchmarks/total_variation.py                        # about 4 CPU minutes
    python benchmarks/total_variation.py --size 112 --photos 1  # about 3 more
    python benchmarks/total_variation.py --data orl --size 64
    python benchmarks/total_variation.py --attack inverting_gradients
    python benchmarks/total_variation.py --noise 1              # as long as the gradient
    python benchmarks/total_variation.py --weights --noise 1 --line "ResNet-18 eval, trained" \
        --set attacks.search.image_priors.MATCHING_COLOR_WEIGHTS=None    # each channel by itself

`gan_inversion` without spans, or another attack, on one update of one photo, the default face
network, fresh, or a line of `stock_clients.py` (64 px), trained on all but those attacked, in the
mode and by the local steps that it has; undefended, or with noise whose size the attack is told.
The rule was derived for
`gan_inversion`, with the feature map that the update gives away, and confirmed on a photo each of
p01 and p02 of OpenPeople; here p09 and p10 are attacked (of ORL, the last two people). `rule` is
what the rule gives: the default, but for `gias`, `gifd` and `gion`, which stay at 0.001. Beside it
stands what the attack takes, or took, at every size.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean

import torch
from stock_clients import LINES, SIZE, Line, delta_of, network_of, update_of
from torch import Tensor
from tuning import add_set, settings

import fedaudit
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.gias import gias
from fedaudit.attacks.presets.gifd import gifd
from fedaudit.attacks.presets.gion import gion
from fedaudit.attacks.presets.grad_inversion import grad_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.presets.map_inversion import MapInversion
from fedaudit.core.observation import ModelSpec
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl
from fedaudit.defenses.noise import GaussianNoise
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import PSNR, SSIM

ATTACKS = {
    "gan_inversion": (partial(gan_inversion, spans_first=False), 0.3),
    "inverting_gradients": (inverting_gradients, 0.05),
    "gias": (gias, 1e-3),
    "gifd": (gifd, 1e-3),
    "gion": (gion, 1e-3),
    "grad_inversion": (grad_inversion, 0.05),
    "map_inversion, descent": (partial(MapInversion, solve_steps=0), 0.2),
}
"""Each, and the weight that it has, or had, at every size."""


def noisy(update: Mapping[str, Tensor], times: float, seed: int) -> dict[str, Tensor]:
    """The update with Gaussian noise so many times as long as itself, as the defense adds it."""
    drawn = torch.Generator().manual_seed(seed)
    numbers = torch.cat([value.flatten() for value in update.values()])
    std = times * float(numbers.norm()) / len(numbers) ** 0.5
    return {
        name: value + std * torch.randn(value.shape, generator=drawn)
        for name, value in update.items()
    }


def face_line(size: int) -> Line:
    """The default face network, fresh, for ten people."""
    spec = ModelSpec("face", {"classes": 10, "image_size": size})
    return Line("face", lambda classes: build(spec, seed=0), trained=False, training=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a row for each weight."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("openpeople", "orl"), default="openpeople")
    parser.add_argument("--people", nargs="+", help="who is attacked; the last two if not given")
    parser.add_argument("--photos", type=int, default=2, help="of each person")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--attack", choices=ATTACKS, default="gan_inversion")
    parser.add_argument("--noise", type=float, default=0.0, help="times the gradient's length")
    parser.add_argument("--weights", nargs="*", type=float, help="of the one before if not given")
    parser.add_argument("--line", choices=[line.name for line in LINES], metavar="NAME",
                        help="a line of stock_clients.py in place of the face network")  # fmt: skip
    add_set(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    asked = settings(options.given)
    faces = (openpeople if options.data == "openpeople" else orl)(size=options.size)
    chosen = options.people or sorted(set(faces.people))[-2:]
    if options.line and (options.data != "openpeople" or options.size != SIZE or len(chosen) != 2):
        parser.error(f"lines are of two people of OpenPeople at {SIZE} px, trained on the others")
    rows = [
        row
        for person in chosen
        for row in [i for i, p in enumerate(faces.people) if p == person][: options.photos]
    ]
    line = next((one for one in LINES if one.name == options.line), face_line(options.size))
    model, classes = network_of(line, faces, 0, chosen), 8 if options.line else 10
    print("| weight | photos | SSIM (least) | PSNR, dB | CPU s |\n|---|---|---|---|---|")
    attack, before = ATTACKS[options.attack]
    weights = [before] if options.weights is None else options.weights
    for weight in (None, *weights):
        scores = []
        for number, row in enumerate(rows):
            image, label = faces.images[[row]], torch.tensor([number % classes])
            if line.local is None:
                update = update_of(model, image, label)
            else:
                update, _ = delta_of(model, image, label, line.local)
            if options.noise:
                update = noisy(update, options.noise, number)
            began = time.process_time()
            rebuilt = fedaudit.attack(
                model,
                update,
                attack(total_variation=weight, **asked),
                kind="gradient" if line.local is None else "delta",
                training=line.local,
                image_shape=tuple(image.shape[1:]),
                defense=GaussianNoise(std=options.noise, of="norm") if options.noise else (),
                seed=number,
            )
            spent = time.process_time() - began
            quality = float(SSIM()(image, rebuilt.images)), float(PSNR()(image, rebuilt.images))
            scores.append((*quality, spent))
        ssim, psnr, seconds = (mean(column) for column in zip(*scores, strict=True))
        name = "rule" if weight is None else f"{weight:g}"
        least = min(score[0] for score in scores)
        print(f"| {name} | {len(rows)} | {ssim:.2f} ({least:.2f}) | {psnr:.1f} | {seconds:.0f} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
