"""Several local steps: replaying them against surrogates with one gradient, in pixels alone.

    python benchmarks/local_steps.py            # about 25 minutes on one core
    python benchmarks/local_steps.py --quick    # one target, a third of the steps

The default face network at 32 px (ORL, 3 clients of 10 people), fresh and after 12 rounds, attacked
through the weight delta of a client that takes several full-batch steps. All lines are the same
search (pixels, cosine distance, total variation, 1 start) and differ in the dummy update alone:

    one step   the gradient at the global weights, as if there had been one step
    midpoint   the gradient halfway to the local weights (a steady pace, one point)
    path       gradients at up to 4 places on the known line, at the pace of training on noise
    path+      the same, then a fifth of the steps with the replay
    replay     the steps themselves from the start

`truth` is the cosine distance of the true images' dummy update, `passes` what one call costs in
single-image passes.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.training.dummy_update import DummyUpdate, dummy_update_for
from fedaudit.attacks.training.simulated_training import along_simulated_path, smooth_noise
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.scoring.pairing import pair

ROUNDS = 12
SETTINGS = {
    "sgd 0.01 × 4": LocalTraining(lr=0.01, steps=4),
    "sgd 0.1 × 4": LocalTraining(lr=0.1, steps=4),
    "sgd 0.01 × 16": LocalTraining(lr=0.01, steps=16),
    "sgd 0.1 × 16": LocalTraining(lr=0.1, steps=16),
    "momentum 0.01 × 4": LocalTraining(lr=0.01, steps=4, momentum=0.9),
    "adam 0.001 × 4": LocalTraining(lr=0.001, steps=4, optimizer="adam"),
}
LINES = ("one step", "midpoint", "path", "path+", "replay")


def lines(trial: DummyUpdate, labels: Tensor, generator: torch.Generator) -> dict[str, DummyUpdate]:
    """The dummy updates to compare."""
    path = replace(along_simulated_path(trial, (3, 32, 32), labels, generator), points=4)
    return {
        "one step": replace(trial, mode="start"),
        "midpoint": replace(trial, mode="path", points=1),
        "path": path,
        "path+": path,
        "replay": trial,
    }


def attack(
    trials: list[tuple[DummyUpdate, int]], labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Gray pixels that explain the update: the trials one after another, for their steps."""
    count = trials[0][0].count
    pixels = (0.5 + 0.1 * torch.randn(count, 1, 32, 32, generator=generator)).clamp(0, 1)
    pixels.requires_grad_()
    for number, (trial, steps) in enumerate(trials):
        generic = smooth_noise(count, (3, 32, 32), generator_for("generic"))
        shown = trial.gradients(generic, labels, create_graph=False)
        scale = max(float(miss(shown, trial.target)), 1e-6)
        optimizer = torch.optim.Adam([pixels])
        best, kept = float("inf"), pixels.detach().clone()
        for step in range(steps):
            images = pixels.expand(-1, 3, -1, -1)
            distance = miss(trial.gradients(images, labels), trial.target) / scale
            rough = (pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()) * 0.3
            loss = (distance + 1e-6).sqrt() + rough
            if float(loss.detach()) < best:
                best, kept = float(loss.detach()), pixels.detach().clone()
            (slope,) = torch.autograd.grad(loss, pixels)
            pixels.grad = slope.sign()
            optimizer.param_groups[0]["lr"] = (
                0.05 / (1 + 2 * number) * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
        with torch.no_grad():
            pixels.copy_(kept)
    return pixels.detach().expand(-1, 3, -1, -1)


def miss(trial: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1 − cosine over all parameters together."""
    one, two = (torch.cat([t.flatten() for t in tensors]) for tensors in (trial, target))
    return 1 - torch.cosine_similarity(one, two, dim=0)


def ssim(capture: Capture, images: Tensor) -> float:
    """Mean SSIM of the reconstruction, paired with the truth by labels and squared error."""
    secret = capture.secret
    assert secret is not None
    order = pair(secret.images, secret.labels, images, secret.labels)
    return float(SSIM()(secret.images, images[list(order)]).mean())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one target, fewer steps")
    parser.add_argument("--batch", type=int, default=1, help="images of the client")
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--steps", type=int, default=250, help="of each search")
    parser.add_argument("--models", nargs="+", default=["fresh", "trained"])
    parser.add_argument("--clients", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, targets = (100, 1) if options.quick else (options.steps, options.targets)
    federation = with_keys(Federation(), {"clients": 3, "rounds": ROUNDS, "lr": 0.05})
    faces = orl(size=32)
    parts = split(faces, federation)
    simulation = Simulation(ModelSpec("face"), faces, parts, federation, FedAvg(), NoDefense())
    fresh = simulation.fresh()
    trained, _ = simulation.train(fresh, range(1, ROUNDS + 1))
    rows = []
    print(f"{'model':8} {'client':18} {'trial':10} {'passes':>6} {'truth':>7} {'SSIM':>6} "
          f"{'s':>6}", flush=True)  # fmt: skip
    for model, state, number in (("fresh", fresh, 1), ("trained", trained, ROUNDS + 1)):
        if model not in options.models:
            continue
        for client in options.clients:
            training = SETTINGS[client]
            found: dict[str, list[tuple[float, float, float, int]]] = {line: [] for line in LINES}
            for target in range(targets):
                capture = simulate(
                    simulation,
                    state,
                    target=target,
                    batch_size=options.batch,
                    training=replace(training, batch_size=options.batch),
                    threat=threat_model("C", ["labels"]),
                    round=number,
                )
                seen, secret = capture.seen, capture.secret
                assert secret is not None
                assert seen.labels is not None
                trial = dummy_update_for(seen, gather(seen).model)
                trials = lines(trial, seen.labels, generator_for("rehearsal", target))
                for line, tried in trials.items():
                    exact = replace(tried, softening=0.0)
                    truth = miss(
                        exact.gradients(secret.images, seen.labels, create_graph=False),
                        tried.target,
                    )
                    plan = [(tried, steps)]
                    if line == "path+":
                        plan.append((trial, steps // 5))
                    started = time.process_time()
                    images = attack(plan, seen.labels, generator_for("attack", target))
                    seconds = time.process_time() - started
                    found[line].append(
                        (float(truth.detach()), ssim(capture, images), seconds, tried.passes)
                    )
            for line, results in found.items():
                truth_, score, seconds, passes = (
                    mean(column) for column in zip(*results, strict=True)
                )
                rows.append({"model": model, "client": client, "trial": line, "passes": passes,
                             "truth": truth_, "ssim": score, "seconds": seconds})  # fmt: skip
                print(f"{model:8} {client:18} {line:10} {passes:6.0f} {truth_:7.4f} {score:6.2f} "
                      f"{seconds:6.1f}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
