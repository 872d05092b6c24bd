"""What a round-wise sweep costs against the batch size, with the naive way beside it.

In a sweep each image of the batch takes one step with the others held (Liu et al. 2021). Ours keeps
the sum of the others' gradients and recomputes one image's; the naive way recomputes the gradient
of the whole batch for every image's step. The floor is one forward–backward pass of the network on
one image. CPU seconds, one thread; the ways take turns, and each number is a median.

    python benchmarks/round_wise_cost.py [--repeats 7] [--json]

Half a minute on one core.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.attacks.search.movers.mover import Plan, Task
from fedaudit.attacks.search.movers.round_wise import Movement
from fedaudit.attacks.search.trace import Trace
from fedaudit.core.client import ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of

STEPS_A_TURN = 30
"""As many as `gan_inversion` makes in pixels before the next image moves."""
BATCHES = (1, 2, 4, 8)
CLASSES = 40
SIZE = 32


def observe(batch: int) -> Observation:
    """The update of `face` on random images: the cost does not depend on what they show."""
    spec = ModelSpec("face", {"classes": CLASSES, "image_size": SIZE})
    noise = torch.Generator().manual_seed(0)
    task = ClientTask(
        model=spec,
        before=parameters_of(build(spec)),
        kept={},
        images=torch.rand(batch, 3, SIZE, SIZE, generator=noise),
        labels=torch.arange(batch),
        training=LocalTraining(batch_size=batch),
        share="gradient",
        generator=noise,
    )
    shared = train_locally(task).shared
    return Observation(spec, task.before, shared, (3, SIZE, SIZE), batch, CLASSES)


def no_prior(variable: Tensor, images: Tensor) -> Tensor:
    """Nothing beside the match."""
    del variable
    return images.new_zeros(())


def leaves(batch: int) -> list[Tensor]:
    """Random images to start from."""
    noise = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, SIZE, SIZE, generator=noise).requires_grad_() for _ in range(batch)]


def ours(matching: Matching, steps: int) -> None:
    """`steps` sweeps as the attacks run them, with the passes that fill the held sums."""
    variables = leaves(matching.evidence.count)
    task = Task(matching, variables, lambda v: v, no_prior, Trace(steps))
    Movement(task, Plan(steps=steps, lr=0.01, rounds=max(1, steps // STEPS_A_TURN))).run()


def naive(matching: Matching, steps: int) -> None:
    """The same steps, the whole batch's gradient for each of them."""
    variables = leaves(matching.evidence.count)
    searches = [Search([v], 0.01, steps) for v in variables]
    for _ in range(steps):
        for moving, search in enumerate(searches):
            images = torch.cat([v if i == moving else v.detach() for i, v in enumerate(variables)])
            trial, distance = matching.gradients(images, range(len(variables)))
            loss = matching.objective(trial, distance)
            search.step(lambda loss=loss: loss[None])


def floor(matching: Matching, steps: int) -> None:
    """`steps` forward–backward passes of the network on one image."""
    model, images = matching.evidence.model, leaves(1)[0].detach()
    criterion, parameters = criterion_of(model), list(model.parameters())
    for _ in range(steps):
        torch.autograd.grad(criterion(model(images), torch.tensor([0])), parameters)


def seconds_of(way: Callable[[Matching, int], None], matching: Matching, steps: int) -> float:
    """CPU seconds for one of `steps` steps."""
    started = time.process_time()
    way(matching, steps)
    return (time.process_time() - started) / steps


def measure(repeats: int, steps: int) -> list[dict[str, float]]:
    """One row a batch size; the ways and the sizes take turns within each repeat."""
    engines = {batch: Matching(gather(observe(batch)), use_first_fc=False) for batch in BATCHES}
    ways = {"floor": floor, "ours": ours, "naive": naive}
    taken: dict[tuple[str, int], list[float]] = {}
    for repeat in range(repeats + 1):  # the first warms up
        for batch, matching in engines.items():
            for name, way in ways.items():
                seconds = seconds_of(way, matching, steps)
                if repeat:
                    taken.setdefault((name, batch), []).append(seconds)
    middle = {key: statistics.median(values) for key, values in taken.items()}
    base = statistics.median(x for batch in BATCHES for x in taken["floor", batch])
    return [
        {
            "batch": batch,
            "floor_seconds": base,
            "ours_seconds": middle["ours", batch],
            "ours_to_batch_1": middle["ours", batch] / middle["ours", 1],
            "ours_to_floor": middle["ours", batch] / base,
            "naive_seconds": middle["naive", batch],
            "naive_to_batch_1": middle["naive", batch] / middle["naive", 1],
            "naive_to_floor": middle["naive", batch] / base,
        }
        for batch in BATCHES
    ]


def main() -> None:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="sweeps in each measurement")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(asked.repeats, asked.steps)
    if asked.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"one sweep over the batch, network face at {SIZE} px, CPU seconds, one thread")
    print(f"one forward–backward pass on one image: {rows[0]['floor_seconds']:.5f} s\n")
    print(f"{'':7}{'round-wise (ours)':^30}{'whole batch a step (naive)':^30}")
    head = f"{'seconds':>10}{'× batch 1':>10}{'× pass':>10}"
    print(f"{'batch':7}{head}{head}")
    for row in rows:
        shown = "".join(
            f"{row[f'{way}_seconds']:10.4f}{row[f'{way}_to_batch_1']:10.2f}"
            f"{row[f'{way}_to_floor']:10.1f}"
            for way in ("ours", "naive")
        )
        print(f"{row['batch']:<7.0f}{shown}")


if __name__ == "__main__":
    main()
