"""Batch norm: clients that train in training or evaluation mode, with and without the prior.

    python benchmarks/batch_norm_modes.py            # about 10 minutes on one core
    python benchmarks/batch_norm_modes.py --quick    # one target, fewer steps

The default face network with batch norm in place of GroupNorm (0.57 M parameters) on ORL at 32 px,
fresh and after 12 rounds, one local step, pixels matched by cosine distance with total variation.
Lines differ in the client's mode and in where the batch-norm prior takes its statistics:

    none      no prior
    exact     granted by the threat model
    buffers   solved for from the running statistics that the client shares (training mode only)
    running   the broadcast running statistics (of a trained model)
    wrong     no prior, and the attacker runs the network in the other mode
"""

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import mean

import torch
from torch import Tensor, nn

from fedaudit.attacks.search.batch_norm_prior import BatchNormPrior, from_buffers, running
from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.simulation import Simulation
from fedaudit.models.batch_norm import client_mode
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.scoring.pairing import pair

ROUNDS = 12
WEIGHT = 1.0
"""Of the prior, beside a match of 1 for an image of nothing."""


def sources(seen: Observation, model: nn.Module, fresh: bool) -> dict[str, Mapping[str, Tensor]]:
    """The statistics that this observation gives, by line."""
    found: dict[str, Mapping[str, Tensor]] = {"none": {}}
    assert seen.statistics is not None
    assert seen.image_shape is not None
    assert seen.batch_size is not None
    found["exact"] = seen.statistics
    if seen.buffers is not None:
        after = seen.buffers.tensors
        found["buffers"] = from_buffers(
            model, seen.before, after, seen.image_shape, seen.batch_size
        )
    if not fresh:
        found["running"] = running(model)
    found["wrong"] = {}
    return found


def attack(
    seen: Observation,
    model: nn.Module,
    source: Mapping[str, Tensor],
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Gray pixels whose gradient points where the client's does."""
    assert seen.update is not None
    assert seen.labels is not None
    assert seen.batch_size is not None
    named = [(n, p) for n, p in model.named_parameters() if n in seen.update.tensors]
    parameters = [p for _, p in named]
    target = torch.cat([-seen.update.tensors[n].flatten() for n, _ in named])
    criterion, prior = criterion_of(model), BatchNormPrior(model, source) if source else None
    pixels = 0.3 + 0.4 * smooth_noise(seen.batch_size, (1, 32, 32), generator)
    pixels.requires_grad_()
    optimizer = torch.optim.Adam([pixels])
    best, kept = float("inf"), pixels.detach().clone()
    for step in range(steps):
        images = pixels.expand(-1, 3, -1, -1)
        penalty: Tensor | float = 0.0
        if prior is None:
            loss = criterion(model(images), seen.labels)
        else:
            with prior.listening() as distance:
                loss = criterion(model(images), seen.labels)
                penalty = WEIGHT * distance()
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        trial = torch.cat([s.flatten() for s in slopes])
        rough = pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()
        objective = 1 - torch.cosine_similarity(trial, target, dim=0) + 0.3 * rough + penalty
        if float(objective.detach()) < best:
            best, kept = float(objective.detach()), pixels.detach().clone()
        (slope,) = torch.autograd.grad(objective, pixels)
        pixels.grad = slope.sign()
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return kept.expand(-1, 3, -1, -1)


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
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--network", default="face", help="or convnet, resnet18_bn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, targets = (60, 1) if options.quick else (options.steps, options.targets)
    arguments = {"norm": "batch"} if options.network != "resnet18_bn" else {}
    federation = with_keys(Federation(), {"clients": 3, "rounds": ROUNDS, "lr": 0.02})
    faces = orl(size=32)
    parts = split(faces, federation)
    spec = ModelSpec(options.network, arguments)
    simulation = Simulation(spec, faces, parts, federation, FedAvg(), NoDefense())
    fresh = simulation.fresh()
    trained, _ = simulation.train(fresh, range(1, ROUNDS + 1))
    print(f"{'model':8} {'mode':6} {'batch':>5} {'prior':8} {'SSIM':>6} {'s':>6}", flush=True)
    for name, state, number in (("fresh", fresh, 1), ("trained", trained, ROUNDS + 1)):
        for mode in ("train", "eval"):
            for batch in (1, 4):
                found: dict[str, list[tuple[float, float]]] = {}
                for target in range(targets):
                    training = LocalTraining(
                        lr=1e-3, batch_size=batch, batch_norm="train" if mode == "train" else "eval"
                    )
                    capture = simulate(
                        simulation,
                        state,
                        target=target,
                        batch_size=batch,
                        training=training,
                        threat=threat_model("E", ["labels"]),
                        round=number,
                    )
                    seen = capture.seen
                    model = client_mode(build(seen.model, seen.before), training)
                    for line, source in sources(seen, model, name == "fresh").items():
                        tried = training
                        if line == "wrong":
                            other = "eval" if mode == "train" else "train"
                            tried = replace(training, batch_norm=other)  # type: ignore[arg-type]
                        model = client_mode(build(seen.model, seen.before), tried)
                        started = time.process_time()
                        images = attack(seen, model, source, steps, generator_for("attack", target))
                        seconds = time.process_time() - started
                        found.setdefault(line, []).append((ssim(capture, images), seconds))
                for line, rows in found.items():
                    score, seconds = (mean(column) for column in zip(*rows, strict=True))
                    print(f"{name:8} {mode:6} {batch:5} {line:8} {score:6.2f} {seconds:6.1f}",
                          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
