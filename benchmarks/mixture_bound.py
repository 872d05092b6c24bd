"""What mixing leaves of a photo, and what undoing InstaHide's mask adds to an attack.

    python benchmarks/mixture_bound.py
    python benchmarks/mixture_bound.py --defenses "instahide, 2 parts" --noise 0.04

The mixed image itself is scored as if it were a reconstruction of the round's own photo, and so is
the photo that the mixed images of several rounds on it have in common
(`mixture_arithmetic.photo_behind`, given the coefficients): the bound of every attack that
rebuilds the mixed image. Of InstaHide that is the image before its mask; the rows "unmasked" start
from the masked image, with noise on it if wanted, and undo the mask (`attacks.adaptive.unmasking`,
trained on the attacker's faces, never ORL). "signs" is the share of |2x − 1| whose sign is right.
ORL at 32 px, all 40 people at one client with five photos each, one target photo a person;
`--targets` of them. Rank-1 of chance is 1/40.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
import torch.nn.functional as F
from learned_inversion import Bench, bench_of
from torch import Tensor

from fedaudit.attacks.adaptive.mixture_arithmetic import SHIFT, Coefficients, photo_behind
from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import kept_faces
from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.core.trial import ImageScore
from fedaudit.data.lfw_subset import lfw_subset
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.defenses.mixing import dirichlet, half_normal, mixing

SHAPE = (3, 32, 32)
MIXED = {
    "mixup, 2 parts": (2, dirichlet(1.0), False),
    "mixup, 4 parts": (4, dirichlet(1.0), False),
    "instahide, 2 parts": (2, half_normal(2, 0.65), True),
    "instahide, 4 parts": (4, half_normal(4, 0.65), True),
}


@dataclass(frozen=True)
class Rounds:
    """Images of one client, one a round.

    Attributes:
        before: `[R, C, H, W]`, mixed.
        masked: `[R, C, H, W]`, as they train.
        labels: `[R, K]`, class probabilities.
    """

    before: Tensor
    masked: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls,
        transform: ImageTransform,
        pool: Tensor,
        whose: Tensor,
        count: int,
        generator: torch.Generator,
    ) -> "Rounds":
        """Of the first of `pool`, with `whose` labels."""
        made = [transform(pool, torch.arange(len(pool)), generator) for _ in range(count)]
        parts = torch.cat([F.pad(soft, (0, len(pool) - soft.shape[1])) for _, soft in made])
        before = torch.einsum("rk,kchw->rchw", parts, pool)
        people = F.one_hot(whose).to(parts)
        return cls(before, torch.cat([image for image, _ in made]), parts @ people)

    def first(self, count: int) -> "Rounds":
        """The first of them."""
        return Rounds(self.before[:count], self.masked[:count], self.labels[:count])


def main() -> None:
    """Mix, unmask, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--defenses", nargs="+", default=list(MIXED), choices=MIXED)
    parser.add_argument("--steps", type=int, default=Unmasking().steps, help="of training")
    parser.add_argument("--noise", type=float, default=0.0, help="deviation on masked images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = kept_faces(Auxiliary(), 4000, SHAPE, grayscale=True, seed=0, cache=None)
    mean_face = faces.mean(0).expand(SHAPE)
    print(f"variance of real faces' mean about generated ones', of a face's: {shift():.2f}")
    print(f"assumed: {SHIFT}")
    bench = bench_of("face", 0)
    captures = [bench.capture(target, 1) for target in range(options.targets)]
    unmasking = Unmasking(steps=options.steps)
    print(f"{'defense':20} {'image':9} {'rounds':>6} {'signs':>6} {'SSIM':>6} {'rank-1':>7} re-id")
    for name in options.defenses:
        parts, weights, masks = MIXED[name]
        transform = mixing(parts, weights, made=1, flip=masks)
        drawn = all_rounds(bench, captures, transform, max(options.rounds))
        for rounds in options.rounds:
            seen = [every.first(rounds) for every in drawn]
            found = [answer(one.before, one.labels, mean_face) for one in seen]
            report(bench, captures, f"{name:20} {'mixed':9} {rounds:6} {'':6}", found)
            if not masks:
                continue
            found, right = [], []
            for target, one in enumerate(seen):
                draws = generator_for("noise", target)
                masked = one.masked + options.noise * torch.randn(one.masked.shape, generator=draws)
                shares = Coefficients.of(one.labels)
                images, mean_of_faces = unmasking.unmasked((transform,), masked, shares)
                found.append(answer(images, one.labels, mean_of_faces))
                right.append(signs_right(images, one.before))
            report(
                bench, captures, f"{name:20} {'unmasked':9} {rounds:6} {mean(right):6.3f}", found
            )


def all_rounds(
    bench: Bench, captures: Sequence[Capture], transform: ImageTransform, count: int
) -> Sequence[Rounds]:
    """What each target's client makes of its photo in `count` rounds."""
    simulation = bench.simulation
    people = simulation.labels_of(0)
    photos = [i for person in people for i in simulation.split.train[person]]
    labels = torch.tensor([people.index(simulation.faces.people[i]) for i in photos])
    images, found = simulation.faces.images[photos], []
    for target, capture in enumerate(captures):
        assert capture.secret is not None
        own = capture.secret.images
        others = (images - own).abs().flatten(1).amax(1) > 0
        pool = torch.cat([own, images[others]])
        whose = torch.cat([capture.secret.labels, labels[others]])
        found.append(Rounds.of(transform, pool, whose, count, generator_for("mixture", target)))
    return found


def answer(mixed: Tensor, labels: Tensor, mean_face: Tensor) -> Tensor:
    """The mixed image of one round, or what those of several share, `[1, C, H, W]`."""
    if len(mixed) == 1:
        return mixed.clamp(0, 1)
    return photo_behind(mixed, Coefficients.of(labels), mean_face)[None]


def report(bench: Bench, captures: Sequence[Capture], what: str, found: Sequence[Tensor]) -> None:
    """Score and print a line."""
    scores: list[ImageScore] = []
    for capture, image in zip(captures, found, strict=True):
        assert capture.secret is not None
        scores += bench.judge(capture, Reconstruction(image, capture.secret.labels))
    hits, total = sum(bool(s.reidentified) for s in scores), len(scores)
    first = sum(s.rank == 1 for s in scores)
    quality = mean(s.metrics.get("ssim", 0.0) for s in scores)
    print(f"{what} {quality:6.3f} {first:3}/{total:<3} {hits:3}/{total}", flush=True)


def shift() -> float:
    """Variance of the mean of scikit-image's real faces about that of generated ones."""
    made = kept_faces(Auxiliary(real=False), 4000, SHAPE, grayscale=True, seed=0, cache=None)
    real = lfw_subset(size=SHAPE[1]).images.mean(1, keepdim=True)
    return float((real.mean(0) - made.mean(0)).square().mean() / made.var(0).mean())


def signs_right(found: Tensor, true: Tensor) -> float:
    """Share of what is off gray whose sign is right."""
    away = 2 * true - 1
    same = (2 * found - 1) * away > 0
    return float((same * away.abs()).sum() / away.abs().sum())


if __name__ == "__main__":
    main()
