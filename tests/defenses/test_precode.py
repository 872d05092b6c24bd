"""PRECODE: the network's arithmetic against its definition, who draws and who does not."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import find_first_fully_connected
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining
from fedaudit.defenses.precode import Precode
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import measure
from fedaudit.models.build_network import build
from fedaudit.models.variational_bottleneck import VariationalFaceNet, divergence, give_noise

Federate = Callable[..., Simulation]
Intercept = Callable[..., Capture]
SETTINGS = {"size": 16, "beta": 0.01}
DEFENDED = {"network": "small_cnn", "defense": "precode", "settings": SETTINGS}


def network(federate: Federate, name: str = "small_cnn") -> VariationalFaceNet:
    made = build(federate(**DEFENDED | {"network": name}).spec(0))
    assert isinstance(made, VariationalFaceNet)
    return made


def test_divergence_is_that_of_normal_distributions() -> None:
    encoded = torch.randn(5, 14, generator=torch.Generator().manual_seed(0))
    mean, spread = encoded.chunk(2, 1)
    one = torch.distributions.Normal(mean, (1 + spread.exp()).log())
    other = torch.distributions.Normal(torch.zeros(7), torch.ones(7))
    expected = torch.distributions.kl_divergence(one, other).sum(1)
    torch.testing.assert_close(divergence(encoded), expected)


@pytest.mark.parametrize("name", ["small_cnn", "face", "lenet", "face_pooled"])
def test_loss_is_the_heads_and_beta_times_the_divergence(federate: Federate, name: str) -> None:
    model = network(federate, name)
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([1, 0, 4])
    encoded = F.linear(
        model.features(images), model.embedding.encoder.weight, model.embedding.encoder.bias
    )
    embedding = model.embedding.decoder(encoded[:, :16])
    expected = model.head.criterion(model.head(embedding), labels)
    expected = expected + 0.01 * divergence(encoded).mean()
    scores = model(images)
    assert scores.shape == (3, len(model.head.weight) + 1)
    torch.testing.assert_close(model.criterion(scores, labels), expected)
    torch.testing.assert_close(
        model.criterion(scores[:, :-1], labels), model.head.criterion(scores[:, :-1], labels)
    )


def test_draws_have_the_encoded_mean_and_spread(federate: Federate) -> None:
    bottleneck = network(federate).embedding
    give_noise(bottleneck, torch.Generator().manual_seed(0))
    encoded = torch.cat([torch.full((4000, 16), 2.0), torch.full((4000, 16), -1.0)], 1)
    drawn = bottleneck.draw(encoded)
    assert float(drawn.mean()) == pytest.approx(2, abs=0.02)
    assert float(drawn.var()) == pytest.approx(math.log(1 + math.exp(-1)) ** 2, rel=0.03)
    assert torch.equal(bottleneck.eval().draw(encoded), encoded[:, :16])


def test_clients_draw_from_their_own_randomness_attackers_compute_with_the_mean(
    intercept: Intercept, gradient_of: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
) -> None:
    before = torch.get_rng_state()
    one, again, other = (intercept(**DEFENDED, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    ours, same, theirs = (c.seen.update for c in (one, again, other))
    assert ours is not None
    assert same is not None
    assert theirs is not None
    name = "head.weight"
    assert torch.equal(ours.tensors[name], same.tensors[name])
    assert not torch.equal(ours.tensors[name], theirs.tensors[name])
    model = build(one.seen.model, one.seen.before)
    assert one.secret is not None
    first, second = (gradient_of(model, one.secret.images, one.secret.labels) for _ in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert first.keys() == ours.tensors.keys()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_features_lie_open_whatever_was_drawn(intercept: Intercept) -> None:
    for seed in (0, 1):
        capture = intercept(**DEFENDED, seed=seed)
        assert capture.secret is not None
        assert capture.seen.update is not None
        model = build(capture.seen.model, capture.seen.before)
        assert isinstance(model, VariationalFaceNet)
        entry = find_first_fully_connected(model, capture.seen.update.tensors, 1)
        assert entry is not None
        assert entry.maps is not None
        truth = model.features(capture.secret.images).detach()
        cosine = F.cosine_similarity(entry.maps, truth)
        assert float(cosine.min()) > 0.9999


def test_attacks_find_its_parts(intercept: Intercept) -> None:
    evidence = gather(intercept(**DEFENDED, batch=2).seen)
    model = evidence.model
    assert isinstance(model, VariationalFaceNet)
    assert evidence.first_fc is not None
    assert evidence.first_fc.weight.shape == (32, model.embedding.encoder.in_features)
    assert dict(model.named_parameters())[model.first_fc_name] is model.embedding.encoder.weight
    images = torch.rand(2, 3, 32, 32)
    through = model.after_first_fc(model.embedding.encoder(model.features(images)))
    torch.testing.assert_close(through, model(images))
    kept = model.head(model.embedding(model.features(images)))
    torch.testing.assert_close(kept, model(images)[:, :-1])


def test_a_federation_trains_and_verifies_by_the_mean(federate: Federate) -> None:
    simulation = federate(**DEFENDED, method="fedavg", local_steps=2)
    fresh = simulation.fresh()
    state, _ = simulation.train(fresh, range(1, 2))
    model = build(simulation.spec(0), state.server).eval()
    assert isinstance(model, VariationalFaceNet)
    images = simulation.faces.images[:4]
    mean = model.embedding.encoder(model.features(images))[:, :16]
    expected = F.normalize(model.embedding.decoder(mean), dim=1)
    torch.testing.assert_close(model.embed(images), expected)
    measured = measure(simulation, state, rounds=1, seconds=0.0)
    assert measured is not None
    assert measured.bytes_per_client_round > 0
    assert set(state.server) == set(fresh.server)


@pytest.mark.parametrize("method", ["fedgc", "solomon_woubie"])
def test_methods_with_a_plain_loss_take_it(intercept: Intercept, method: str) -> None:
    seen = intercept(**DEFENDED, method=method, training=LocalTraining(batch_size=1)).seen
    assert seen.update is not None
    assert "embedding.encoder.weight" in seen.update.tensors


def test_it_goes_beneath_a_methods_own_loss(federate: Federate) -> None:
    from fedaudit.models.method_heads import PullHead, spec_with_head

    simulation = federate(network="small_cnn")
    spec = spec_with_head(simulation.spec(0), "pull", {"margin": 0.9})
    made = build(Precode(size=16).network(spec, simulation.split))
    assert isinstance(made, VariationalFaceNet)
    assert isinstance(made.head, PullHead)
    assert made(torch.rand(2, 3, 32, 32)).shape == (2, made.head.weight.shape[0] + 1)


@pytest.mark.parametrize("method", ["privacyface", "fedaffect"])
def test_methods_whose_loss_has_no_room_are_refused(intercept: Intercept, method: str) -> None:
    with pytest.raises(ConfigError, match="leaves no room for that of a variational bottleneck"):
        intercept(**DEFENDED, method=method, batch=4)


def test_one_bottleneck_is_enough(federate: Federate) -> None:
    twice = {"of": ("precode", "precode")}
    with pytest.raises(ConfigError, match="Use it once"):
        federate(network="small_cnn", defense="chain", settings=twice).fresh()


def test_dp_sgd_takes_per_image_gradients_of_it(intercept: Intercept) -> None:
    of = ({"name": "precode", "size": 16}, {"name": "dpsgd", "noise_multiplier": 0.0})
    update = intercept(network="small_cnn", defense="chain", settings={"of": of}, batch=2).seen
    assert update.update is not None
    assert all(bool(v.isfinite().all()) for v in update.update.tensors.values())


@pytest.mark.parametrize("wrong", [{"size": 0}, {"beta": -1.0}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be ≥ "):
        Precode(**wrong)  # type: ignore[arg-type]
