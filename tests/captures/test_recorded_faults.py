"""Faults planted in federations on real faces are found and named from their recordings."""

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import fedaudit
from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.stated_mechanism import RunSize
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.inspect.missing_noise import moved_by_noise
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.client import ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import Update
from fedaudit.data.orl import orl
from fedaudit.defenses.client_dp import ClientDP
from fedaudit.defenses.dpsgd import DPSGD
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build, parameters_of
from fedaudit.study.read_claims import read_claims

sys.path.insert(0, str(Path(__file__).parents[1] / "study"))
from faulty_dp import NoNoise, WeakNoise

CLIENTS, PHOTOS, BATCH, STEPS, ROUNDS = 4, 16, 8, 4, 2
FAULTS: dict[str, dict[str, Any]] = {
    "no noise": {"defense": NoNoise(noise_multiplier=1.0)},
    "a tenth of the noise": {"defense": WeakNoise(noise_multiplier=1.0)},
    "no noise under Adam": {"defense": NoNoise(noise_multiplier=1.0), "optimizer": "adam"},
    "noise that repeats": {"defense": ClientDP(noise_multiplier=2.0), "repeats": True},
    "buffers in clear": {"defense": ClientDP(noise_multiplier=2.0), "buffers": True},
}
NAMED = {
    "noise that repeats": "it is the same noise, which cancels",
    "buffers in clear": "running statistics of the client's images are sent as they are",
}


def recorded_training(
    folder: Path,
    seed: int,
    defense: Any,
    *,
    optimizer: Literal["sgd", "adam"] = "sgd",
    repeats: bool = False,
    buffers: bool = False,
) -> Path:
    """A recording of four clients with faces of four people each, under `defense`."""
    faces = orl(size=32)
    lr = 0.1 if optimizer == "sgd" else 0.001
    training = LocalTraining(steps=STEPS, batch_size=BATCH, lr=lr, optimizer=optimizer)
    of_image = isinstance(defense, DPSGD)
    claim = DpClaim(
        clip=1.0, noise=defense.noise_multiplier, epsilon=200.0, delta=1e-5, neighbors="add_remove",
        unit="image" if of_image else "client", where="client", sampling=0.5 if of_image else None,
    )  # fmt: skip
    record = fedaudit.recording(
        folder, dp=claim, optimizer=optimizer, lr=lr, batch_size=BATCH, local_steps=STEPS
    )
    spec = ModelSpec("lenet", {"classes": CLIENTS * 4, "image_size": 32})
    server = parameters_of(build(spec, seed=seed))
    statistics = {"norm.running_mean": torch.zeros(8), "norm.num_batches_tracked": torch.zeros(())}
    for number in range(1, ROUNDS + 1):
        record.broadcast(number, {**server, **(statistics if buffers else {})})
        moves = []
        for client in range(CLIENTS):
            photos = torch.arange(4).repeat_interleave(4) * 10 + torch.arange(4).repeat(4)
            draws = torch.Generator().manual_seed(client if repeats else 1000 * number + client)
            task = ClientTask(
                model=spec,
                before=server,
                kept={},
                images=faces.images[40 * client + photos],
                labels=4 * client + photos // 10,
                training=training,
                share="delta",
                generator=draws.manual_seed(draws.initial_seed() + 10_000 * seed),
            )
            (sent,) = defense(train_locally)(task).shared
            assert isinstance(sent, Update)
            moved = {name: value.detach() for name, value in sent.tensors.items()}
            moves.append(moved)
            own = {
                "norm.running_mean": 0.1 * task.images.mean() * torch.ones(8),
                "norm.num_batches_tracked": torch.tensor(float(STEPS)),
            }
            record.update(
                number,
                client,
                {**moved, **(own if buffers else {})},
                kind="delta",
                examples=PHOTOS,
            )
        server = {
            name: value + torch.stack([move[name] for move in moves]).mean(0)
            for name, value in server.items()
        }
    return folder


def only(folder: Path) -> ClaimVerdict:
    (verdict,) = read_claims(folder, RunSize()).verdicts
    return verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found_and_named_in_recordings(
    tmp_path: Path, fault: str, seed: int
) -> None:
    folder = recorded_training(tmp_path / "capture", seed, **FAULTS[fault])
    verdict = only(folder)
    assert verdict.standing == "contradicted"
    assert NAMED.get(fault, "the noise is not in what was shared") in verdict.reasons[0]
    assert end(cli, ["dp", str(folder)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "right",
    [
        {"defense": DPSGD(noise_multiplier=1.0)},
        {"defense": DPSGD(noise_multiplier=1.0), "optimizer": "adam"},
        {"defense": ClientDP(noise_multiplier=2.0)},
    ],
)
def test_right_training_is_not_accused(tmp_path: Path, right: dict[str, Any], seed: int) -> None:
    verdict = only(recorded_training(tmp_path / "capture", seed, **right))
    assert verdict.standing == "guarantee", verdict.reasons


def test_adam_moves_numbers_on_noise_as_simulated() -> None:
    assert moved_by_noise(1) == pytest.approx(1.0, abs=1e-6)
    parameter = torch.zeros(20_000, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=0.01)
    draws = torch.Generator().manual_seed(1)
    for _ in range(7):
        parameter.grad = torch.randn(20_000, generator=draws)
        adam.step()
    assert float(parameter.detach().square().mean().sqrt()) / 0.01 == pytest.approx(
        moved_by_noise(7), rel=0.02
    )
