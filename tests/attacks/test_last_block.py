from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.last_block import _adding_up, invert_last_block
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.facenet import FaceNet

Intercept = Callable[..., Capture]


def true_maps(evidence: Evidence, capture: Capture, depth: int) -> Tensor:
    """The maps, from the photos that no attack sees."""
    assert capture.secret is not None
    assert isinstance(evidence.model, FaceNet)
    assert isinstance(evidence.model.body, nn.Sequential)
    with torch.no_grad():
        maps: Tensor = evidence.model.body[:depth](capture.secret.images)
    return maps


@pytest.mark.parametrize(
    ("network", "batch", "tolerance"),
    [("face", 1, 2e-3), ("face", 3, 0.03), ("face_pooled", 1, 2e-3)],
)
@pytest.mark.parametrize("target", [0, 5])
def test_gives_the_map_before_the_last_block(
    network: str, batch: int, tolerance: float, target: int, intercept: Intercept
) -> None:
    capture = intercept(network=network, batch=batch, target=target)
    evidence = gather(capture.seen)
    inverted = invert_last_block(evidence)
    assert inverted is not None
    true = true_maps(evidence, capture, inverted.depth)
    if batch > 1:  # the order of the batch is not known; that of the maps is the layer's
        distances = torch.cdist(true.flatten(1), inverted.maps.flatten(1))
        assert sorted(distances.argmin(1).tolist()) == list(range(batch))
        true = true[distances.argmin(0)]
    assert float((inverted.maps - true).norm() / true.norm()) < tolerance


def test_needs_no_label(intercept: Intercept) -> None:
    capture = intercept(network="face_pooled")
    evidence = gather(capture.seen)
    inverted = invert_last_block(replace(evidence, labels=None))
    assert inverted is not None
    true = true_maps(evidence, capture, inverted.depth)
    assert float((inverted.maps - true).norm() / true.norm()) < 2e-3


@pytest.mark.parametrize("network", ["face", "face_pooled"])
def test_slopes_of_either_sign(
    network: str, intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    """Training makes some negative; then the sign of an output says nothing of its input's."""
    simulation = federate(network=network)
    state = simulation.fresh()
    slopes = torch.linspace(-0.4, 0.6, 128)
    capture = intercept(
        simulation=simulation,
        state=State({**state.server, "body.6.act2.weight": slopes}),
        target=2,
    )
    evidence = gather(capture.seen)
    inverted = invert_last_block(evidence)
    assert inverted is not None
    true = true_maps(evidence, capture, inverted.depth)
    assert float((inverted.maps - true).norm() / true.norm()) < 2e-3


def test_columns_that_belong_together_add_up() -> None:
    """Among candidates that are sums of others, the true ones are those that the total names."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(2, (6, 40), generator=generator).double() * 0.75 + 0.25
    true[1, 20:], true[2, 20:] = true[0, 20:], true[0, 20:]
    first, second = true[0, :20].clone(), true[0, :20].clone()
    first[:5], second[5:10] = 1.25 - first[:5], 1.25 - second[5:10]
    true[1, :20], true[2, :20] = first, second
    false = true[1] + true[2] - true[0]  # two-valued as well
    assert set(false.tolist()) <= {0.25, 1.0}
    order = torch.randperm(7, generator=generator)
    columns = torch.cat([true, false[None]])[order]
    chosen = _adding_up(columns, 3.7 * true.sum(0), 6)
    assert {tuple(row) for row in chosen.tolist()} == {tuple(row) for row in true.tolist()}
    assert not len(_adding_up(columns, torch.rand(40, generator=generator).double(), 6))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["face", "face_pooled"])
def test_after_a_few_rounds(network: str, federate: Callable[..., object]) -> None:
    from fedaudit.captures.simulate.simulated_capture import simulate
    from fedaudit.core.observation import LocalTraining
    from fedaudit.core.threat_models import threat_model

    simulation = federate(network=network, method="fedavg", lr=0.05, local_steps=4)
    assert isinstance(simulation, Simulation)
    state, _ = simulation.train(simulation.fresh(), range(1, 4))
    gradients = federate(network=network)
    assert isinstance(gradients, Simulation)
    capture = simulate(
        gradients,
        state,
        target=1,
        batch_size=1,
        training=LocalTraining(batch_size=1),
        threat=threat_model("D"),
    )
    evidence = gather(capture.seen)
    inverted = invert_last_block(evidence)
    assert inverted is not None
    true = true_maps(evidence, capture, inverted.depth)
    assert float((inverted.maps - true).norm() / true.norm()) < 0.02


@pytest.mark.parametrize("network", ["face", "face_pooled"])
def test_gives_nothing_rather_than_something_wrong(network: str, intercept: Intercept) -> None:
    capture = intercept(network=network)
    evidence = gather(capture.seen)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for scale in (1e-4, 1e-2, 1.0):
        noisy = {
            name: value
            + scale * value.norm() * torch.randn(value.shape, generator=generator)
            / value.numel() ** 0.5
            if name.startswith("body.")
            else value
            for name, value in evidence.target.items()
        }  # fmt: skip
        inverted = invert_last_block(replace(evidence, target=noisy))
        if inverted is None:
            refused += 1
            continue
        true = true_maps(evidence, capture, inverted.depth)
        assert float((inverted.maps - true).norm() / true.norm()) < 0.1
    assert refused
    shuffled = {
        name: value.roll(1, 0) if name == "body.6.shortcut.weight" else value
        for name, value in evidence.target.items()
    }
    assert invert_last_block(replace(evidence, target=shuffled)) is None


def test_says_none_where_it_does_not_apply(intercept: Intercept) -> None:
    for settings in (
        {"network": "small_cnn"},  # no residual block
        {"network": "face_pooled", "batch": 2},  # upstream gradients of two images mix
        {"network": "face", "batch": 5},  # 5 · 16 positions, 64 channels
        {"network": "face", "defense": "private_projector"},
    ):
        assert invert_last_block(gather(intercept(**settings).seen)) is None
