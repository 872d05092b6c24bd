"""What mixing alone leaves of a photo: the bound of every attack that rebuilds the mixed image.

    python benchmarks/mixture_bound.py

The mixed image itself (InstaHide's without its mask, which an attacker would have to undo first) is
scored as if it were a reconstruction of the round's own photo, and so is the photo that the mixed
images of several rounds on it have in common (`attacks.mixtures.photo_behind`, which is told the
coefficients). ORL at 32 px, all 40 people at one client with five photos each, one target photo a
person; `--targets` of them. Rank-1 of chance is 1/40.
"""

import argparse
from collections.abc import Sequence
from statistics import mean

import torch
from learned_inversion import bench_of
from torch import Tensor

from fedaudit.attacks.mixtures import photo_behind
from fedaudit.defenses.mixing import dirichlet, half_normal, mixing
from fedaudit.seeds import generator_for
from fedaudit.types import Reconstruction

MIXED = {
    "mixup, 2 parts": (2, dirichlet(1.0)),
    "mixup, 4 parts": (4, dirichlet(1.0)),
    "instahide, 2 parts": (2, half_normal(2, 0.65)),
    "instahide, 4 parts": (4, half_normal(4, 0.65)),
}


def main() -> None:
    """Mix, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = bench_of("face", 0)
    simulation = bench.simulation
    people = simulation.labels_of(0)
    photos = [i for person in people for i in simulation.split.train[person]]
    labels = torch.tensor([people.index(simulation.faces.people[i]) for i in photos])
    images = simulation.faces.images[photos]
    print(f"{'defense':20} {'rounds':>6} {'n':>3} {'SSIM':>6} {'rank-1':>7} {'re-id':>7}")
    for name, (parts, weights) in MIXED.items():
        act = mixing(parts, weights, made=1)
        for rounds in options.rounds:
            scores = []
            for target in range(options.targets):
                capture = bench.capture(target, 1)
                assert capture.secret is not None
                own = capture.secret.images
                others = (images - own).abs().flatten(1).amax(1) > 0
                pool = torch.cat([own, images[others]])
                whose = torch.cat([capture.secret.labels, labels[others]])
                draws = generator_for("mixture", target)
                mixed = [act(pool, whose, draws) for _ in range(rounds)]
                found = common([m for m, _ in mixed], [soft for _, soft in mixed], images)
                made = Reconstruction(found, capture.secret.labels)
                scores += bench.judge(capture, made)
            hits = sum(bool(s.reidentified) for s in scores)
            print(
                f"{name:20} {rounds:6} {len(scores):3} {mean(s.ssim or 0.0 for s in scores):6.3f} "
                f"{sum(s.rank == 1 for s in scores):3}/{len(scores):<3} {hits:3}/{len(scores):<3}",
                flush=True,
            )


def common(mixed: Sequence[Tensor], labels: Sequence[Tensor], faces: Tensor) -> Tensor:
    """The mixed image of one round, or what those of several share, `[1, C, H, W]`."""
    if len(mixed) == 1:
        return mixed[0]
    width = max(soft.shape[1] for soft in labels)
    rows = [torch.nn.functional.pad(soft, (0, width - soft.shape[1])) for soft in labels]
    return photo_behind(torch.cat(list(mixed)), torch.cat(rows), faces.mean(0))[0][None]


if __name__ == "__main__":
    main()
