"""The scanner: every manipulation is found, and no honest model is accused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from fedaudit.attacks.malicious.tampering import scan
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of
from fedaudit.models.generator import load_generator

pytestmark = pytest.mark.usefixtures("drawn_once")
NETWORKS = ("face", "face_pooled", "small_cnn", "mlp")


def fresh(network: str, seed: int = 0) -> dict[str, Tensor]:
    return parameters_of(build(spec_of(network), seed=seed))


def spec_of(network: str) -> ModelSpec:
    return ModelSpec(network, {"classes": 40, "image_size": 32})


def checks(model: dict[str, Tensor], previous: dict[str, Tensor] | None = None) -> set[str]:
    return {trace.check for trace in scan(model, previous)}


# --- nobody honest is accused -------------------------------------------------------------------


@pytest.mark.parametrize("network", [*NETWORKS, "resnet18"])
def test_fresh_networks(network: str) -> None:
    for seed in range(5):
        assert scan(fresh(network, seed)) == ()


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_other_peoples_networks(name: str) -> None:
    """With batch-norm buffers, depth-wise filters, counters."""
    torch.manual_seed(0)
    assert scan(getattr(torchvision.models, name)(weights=None).state_dict()) == ()


def test_networks_that_were_trained_elsewhere() -> None:
    assert scan(load_generator("face_gan").state_dict()) == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("network", [*NETWORKS, "mobilefacenet"])
def test_training_from_round_to_round(network: str, optimizer: str, faces: FaceSet) -> None:
    model = build(spec_of(network))
    update: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(model.parameters(), 1e-3)
    )
    draw, before = torch.Generator().manual_seed(0), parameters_of(model)
    for _ in range(3):
        for _ in range(4):
            which = torch.randperm(400, generator=draw)[:16]
            update.zero_grad()
            loss = criterion_of(model)(model(faces.images[which]), which // 10)
            torch.autograd.backward(loss)
            update.step()
        after = parameters_of(model)
        assert scan(after, before) == ()
        before = after


def test_a_federation_from_round_to_round(federate: Callable[..., Simulation]) -> None:
    simulation = federate(method="fedavg", network="small_cnn")
    state = simulation.fresh()
    for number in (1, 2):
        after, _ = simulation.train(state, range(number, number + 1))
        assert scan(after.server, state.server) == ()
        state = after


# --- everybody malicious is -----------------------------------------------------------------------


@pytest.mark.parametrize("network", ["face", "face_pooled", "small_cnn"])
@pytest.mark.parametrize(
    ("attack", "settings", "expected"),
    [
        ("imprint", {}, {"proportional_rows", "ascending_biases"}),
        ("imprint", {"mode": "separate"}, {"proportional_rows", "ascending_biases"}),
        ("imprint", {"prior": "", "bins": 32}, {"proportional_rows", "ascending_biases"}),
        ("trap_weights", {"rows": 64}, {"half_negative_rows"}),
        ("trap_weights", {"prior": "", "rows": 64}, {"half_negative_rows"}),
        ("fishing", {}, None),
        ("fishing", {"mode": "class", "target_class": 3}, None),
    ],
)
def test_what_our_own_attacks_send(
    network: str, attack: str, settings: dict[str, Any], expected: set[str] | None
) -> None:
    honest = fresh(network)
    plugin = create("attacks", attack, settings)
    _, sent = plugin.broadcast(spec_of(network), honest, generator=torch.Generator().manual_seed(0))
    margin_head = network == "face"
    if expected is None:  # a head without bias has equal rows, another one has zeros
        expected = {"proportional_rows"} if margin_head else {"empty_rows", "odd_bias"}
    assert expected <= checks(sent)
    assert ("jump" if attack == "fishing" else "inserted") in checks(sent, honest)


def test_shuffled_bins_are_still_bins() -> None:
    plugin = create("attacks", "imprint", {"prior": "", "bins": 64})
    draw = torch.Generator().manual_seed(0)
    _, sent = plugin.broadcast(spec_of("face"), fresh("face"), generator=draw)
    order = torch.randperm(64, generator=draw)
    for name in ("body.block.read.weight", "body.block.read.bias"):
        sent[name] = sent[name][order]
    sent["body.block.write.weight"] = torch.randn(3072, 64, generator=draw)
    assert checks(sent) == {"proportional_rows"}


def spoiled(name: str, change: Callable[[Tensor], Any], network: str = "small_cnn") -> set[str]:
    model = fresh(network)
    change(model[name])
    return checks(model, fresh(network))


def test_one_thing_at_a_time() -> None:
    def identity(kernel: Tensor) -> None:
        kernel.zero_()
        for k in range(3):
            kernel[k, k, 2, 2] = 1.0

    assert "identity_filters" in spoiled("body.1.weight", identity)
    assert spoiled("head.bias", lambda b: b[7].fill_(-30.0)) == {"odd_bias"}
    assert spoiled("head.weight", lambda w: w[7].mul_(100.0)) >= {"odd_row"}
    assert spoiled("head.weight", lambda w: w[1:].zero_()) >= {"empty_rows"}
    assert spoiled("body.3.weight", lambda w: w.mul_(1e3)) >= {"implausible_size", "jump"}
    assert spoiled("body.3.weight", lambda w: w.neg_()) == {"jump"}
    assert spoiled("body.3.weight", lambda w: w[0].fill_(float("nan"))) == {"not_finite"}


def test_another_architecture() -> None:
    one, two = fresh("small_cnn"), fresh("small_cnn")
    two["extra.weight"] = torch.ones(2)
    assert checks(two, one) == {"inserted"}
    assert checks(one, two) == {"removed"}
    two["head.bias"] = torch.zeros(41)
    assert checks(two, one) == {"inserted", "reshaped"}


def test_evidence_and_sentences() -> None:
    model = fresh("small_cnn")
    model["head.bias"][7] = -30.0
    (trace,) = scan(model)
    assert trace.parameter == "head.bias"
    assert trace.evidence["index"] == 7
    assert trace.evidence["value"] == -30.0
    assert "bias 7" in trace.sentence
    assert trace.sentence.endswith(".")


def test_half_precision_integers_and_empty_tensors() -> None:
    model = {k: v.half() for k, v in fresh("face").items()}
    model["counter"] = torch.tensor(3)
    model["nothing"] = torch.zeros(0, 5)
    assert scan(model, model) == ()
