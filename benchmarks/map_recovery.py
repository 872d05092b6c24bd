"""How much of a batch's inner maps follows from the gradients of what lies behind them.

    python benchmarks/map_recovery.py --block 20 --products 50             # 7×7, 15 CPU minutes
    python benchmarks/map_recovery.py --block 13 --products 200 --linear   # 14×14, 10 of them

Where layers have more positions than inputs, spans say nothing and a batch can only follow from
what gradients are: numbers for the parameters behind block `--block` of a network's body, that the
maps sent into it must give. Eight photos of two people of OpenPeople, labels given, a network that
is pre-trained as in `deployed_networks.py`, batch norm in training mode. Maps are counted from the
mean over other people's photos, in units of their deviation, and each parameter's gradient in units
of its own size.

Gauss–Newton goes from other people's maps, each step by conjugate gradients of so many products
with a little damping. With `--linear` the gradients are replaced by their slope at the photos' own
maps: no attacker has that, and no search through the true gradients can be easier.

The cosine is that of what tells a photo's maps from the mean, 1 if they are found; of 8 photos, the
mean and the least.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from deployed_networks import Line, network_of
from ten_people import batches
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp

from fedaudit.attacks.evidence.conjugate_gradients import conjugate_gradients
from fedaudit.data.openpeople import openpeople
from fedaudit.models.batch_norm import batch_norm_layers
from fedaudit.models.facenet import FaceNet

SIZE, BATCH, OTHERS = 112, 8, 64
Gradients = dict[str, Tensor]


class Rest(nn.Module):
    """What lies behind a block of a network's body."""

    def __init__(self, model: FaceNet, block: int) -> None:
        super().__init__()
        self.body = model.body[block:]
        self.embedding, self.head = model.embedding, model.head

    def forward(self, maps: Tensor) -> Tensor:
        """Scores, from what is sent into the first of the blocks."""
        scores: Tensor = self.head(self.embedding(torch.flatten(self.body(maps), 1)))
        return scores


class Problem:
    """Maps `[n, …]` to be found, in units of what other people's have, and what tells of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        faces = openpeople(size=SIZE)
        line = Line(options.network, SIZE, BATCH, {})
        model = network_of(line, options.seed, options).to(options.dtype)
        if not isinstance(model, FaceNet):
            raise SystemExit(f"{options.network} is not a network of this project's.")
        for norm in batch_norm_layers(model).values():
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        rows = next(batches(faces, BATCH, 1, options.seed, options.people))
        own = {faces.people[row] for row in rows}
        strangers = [i for i, person in enumerate(faces.people) if person not in own]
        order = torch.randperm(len(strangers), generator=torch.Generator().manual_seed(0))
        others = faces.images[[strangers[i] for i in order[:OTHERS]]].to(options.dtype)
        front = model.body[: options.block]
        with torch.no_grad():
            seen = torch.cat([front(part) for part in others.split(BATCH)])
            maps = front(faces.images[rows].to(options.dtype))
        self.mean, self.unit = seen.mean(0), seen.std(0) + 1e-3
        self.truth, self.start = ((m - self.mean) / self.unit for m in (maps, seen[:BATCH]))
        self.rest = Rest(model, options.block)
        self.criterion, self.labels = model.criterion, torch.arange(BATCH)
        self.parameters = {n: p.detach() for n, p in self.rest.named_parameters()}
        self.sizes = {n: g.square().mean().sqrt() for n, g in self._raw(self.truth).items()}
        self.sent = self.gradients(self.truth)

    def _raw(self, maps: Tensor) -> Gradients:
        def loss(parameters: Gradients) -> Tensor:
            scores = functional_call(self.rest, parameters, (self.mean + self.unit * maps,))
            return self.criterion(scores, self.labels)

        return grad(loss)(self.parameters)

    def gradients(self, maps: Tensor) -> Gradients:
        """Of all parameters, in units of their own."""
        return {name: one / self.sizes[name] for name, one in self._raw(maps).items()}

    def missed(self, maps: Tensor) -> float:
        """Squared distance to what was sent."""
        found = self.gradients(maps)
        return sum(float((self.sent[name] - found[name]).square().sum()) for name in found)

    def step(
        self, at: Tensor, goal: Callable[[Gradients], Gradients], damping: float, products: int
    ) -> Tensor:
        """The step from `at` that brings gradients nearest to where `goal` wants them moved."""
        found, back = vjp(self.gradients, at)

        def apply(parts: list[Tensor]) -> list[Tensor]:
            moved = jvp(self.gradients, (at,), (parts[0],))[1]
            return [back(moved)[0] + damping * parts[0]]

        right = back(goal(found))[0]
        return conjugate_gradients(apply, [right], steps=products, tolerance=1e-4)[0]


def linear(problem: Problem, options: argparse.Namespace, tell: Callable[..., None]) -> None:
    """By the slope at the truth, with more and more products."""
    truth = problem.truth
    goal = jvp(problem.gradients, (truth,), (truth,))[1]
    products = options.products
    for count in sorted({max(products // 8, 1), max(products // 2, 1), products}):
        tell(count, problem.step(truth, lambda _: goal, options.damping, count))


def search(problem: Problem, options: argparse.Namespace, tell: Callable[..., None]) -> None:
    """By Gauss–Newton from other people's maps."""
    maps, damping = 0.3 * problem.start, 1.0
    missed = problem.missed(maps)
    for number in range(options.steps):
        products = options.products * (3 if number >= 25 else 1)  # late ones need more
        move = problem.step(
            maps,
            lambda found: {name: problem.sent[name] - found[name] for name in found},
            damping,
            products,
        )
        for length in (1.0, 0.5, 0.25, 0.1):
            if (now := problem.missed(maps + length * move)) < missed:
                maps, missed = maps + length * move, now
                damping *= 1 / 3 if length == 1 else 1.5
                break
        else:
            damping *= 4
        if number % 5 == 4 or number + 1 == options.steps:
            tell(number + 1, maps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line now and then."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="mobilefacenet", help="of this project's")
    parser.add_argument("--block", type=int, default=20, help="of its body, counted from 0")
    parser.add_argument("--people", nargs=2, default=["p01", "p02"], metavar="PERSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trained", type=int, default=20, help="steps of pre-training")
    parser.add_argument("--steps", type=int, default=34, help="of Gauss–Newton")
    parser.add_argument("--products", type=int, default=50, help="with the slope, a step")
    parser.add_argument("--linear", action="store_true", help="the slope at the photos' own maps")
    parser.add_argument("--damping", type=float, default=1e-5, help="with --linear")
    options = parser.parse_args(arguments)
    options.training = True
    options.dtype = torch.float32 if options.linear else torch.float64
    torch.set_num_threads(1)
    problem = Problem(options)
    numbers = sum(one.numel() for one in problem.sent.values())
    print(
        f"{numbers:,} numbers of gradients for {problem.truth.numel():,} of maps\n\n"
        f"| {'products' if options.linear else 'steps'} | cosine (least) | CPU s |\n|---|---|---|"
    )
    begun = time.process_time()

    def tell(count: int, maps: Tensor) -> None:
        cosines = F.cosine_similarity(maps.flatten(1), problem.truth.flatten(1))
        spent = time.process_time() - begun
        print(f"| {count} | {cosines.mean():.2f} ({cosines.min():.2f}) | {spent:.0f} |", flush=True)

    (linear if options.linear else search)(problem, options, tell)


if __name__ == "__main__":
    main()
