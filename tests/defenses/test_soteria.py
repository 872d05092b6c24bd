"""Soteria: its choice against a computation one unit and one photo at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.soteria import Soteria, defended_layer, input_of, leakage
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tiny(nn.Module):
    """Six inputs of a linear layer, one of which is always silent."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 4)
        self.second = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images).flatten(1).tanh() * torch.tensor([1.0, 2, 0, 1, 1, 3])
        scores: Tensor = self.second(hidden)
        return scores


def tiny() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny()


def by_finite_differences(model: Tiny, images: Tensor) -> list[float]:
    """The score of each input, from differences of the network's values, photo by photo."""
    model, images = model.double(), images.double()
    scale = torch.tensor([1.0, 2, 0, 1, 1, 3]).double()
    scores = [0.0] * 6
    for image in images:

        def inputs(shown: Tensor) -> Tensor:
            values: Tensor = model.first(shown[None]).flatten().tanh() * scale
            return values

        for unit in range(6):
            squares = 0.0
            for pixel in range(16):
                change = torch.zeros(16, dtype=torch.float64)
                change[pixel] = 1e-5
                up = inputs(image + change.view(1, 4, 4))[unit]
                down = inputs(image - change.view(1, 4, 4))[unit]
                squares += (float(up - down) / 2e-5) ** 2
            value = abs(float(inputs(image)[unit]))
            scores[unit] += value / squares**0.5 if squares else 0.0
    return scores


@torch.no_grad()
def test_the_choice_is_that_of_a_brute_force_computation() -> None:
    images = torch.rand(3, 1, 4, 4, generator=generator())
    found = leakage(input_of(tiny(), "second"), images, 0, generator())
    expected = by_finite_differences(tiny(), images)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    kept = Soteria(pruned=0.5, probes=0).kept(tiny(), images, generator())
    largest = sorted(range(6), key=lambda unit: -expected[unit])[:3]
    assert kept.tolist() == [unit not in largest for unit in range(6)]


@pytest.mark.parametrize("network", ["small_cnn", "mlp"])
def test_random_probes_estimate_the_derivative(network: str) -> None:
    model = build(ModelSpec(network, {"classes": 4, "image_size": 32})).eval()
    images = torch.rand(2, 3, 32, 32, generator=generator())
    represent = input_of(model, defended_layer(model))
    exact = leakage(represent, images, 0, generator())
    # Another seed than the weights': probes from the same numbers would line up with them.
    estimate = leakage(represent, images, 1000, generator(1))
    torch.testing.assert_close(estimate, exact, rtol=0.15, atol=1e-6)


@pytest.mark.slow
def test_photos_do_not_depend_on_each_other_through_batch_norm(
    intercept: Callable[..., Capture],
) -> None:
    capture = intercept(network="resnet18_bn", batch=2)
    assert capture.secret is not None
    images = capture.secret.images
    represent = input_of(build(capture.seen.model, capture.seen.before).eval(), "head")
    torch.testing.assert_close(represent(images)[:1], represent(images[:1]))
    assert leakage(represent, images, 2, generator()).shape == (512,)


@pytest.mark.parametrize(("network", "layer"), [("small_cnn", "embedding"), ("lenet", "head")])
@pytest.mark.parametrize("method", ["fedsgd", "fedavg"])
def test_the_update_has_columns_of_zeros_in_one_layer_and_nothing_else_changed(
    intercept: Callable[..., Capture], network: str, layer: str, method: str
) -> None:
    settings = {"pruned": 0.25, "probes": 2}
    shared = {"network": network, "method": method, "batch": 2}
    update = intercept(defense="soteria", settings=settings, **shared).seen.update
    bare = intercept(**shared).seen.update
    assert isinstance(update, Update)
    assert isinstance(bare, Update)
    for name, value in bare.tensors.items():
        if name != f"{layer}.weight":
            assert torch.equal(update.tensors[name], value)
    sent, whole = update.tensors[f"{layer}.weight"], bare.tensors[f"{layer}.weight"]
    zero = (sent == 0).all(0)
    assert int(zero.sum()) == round(0.25 * sent.shape[1])
    assert torch.equal(sent[:, ~zero], whole[:, ~zero])
    assert bool((whole[:, zero] != 0).any())


@pytest.mark.parametrize(("network", "layer"), [("small_cnn", "embedding"), ("resnet18", "head")])
def test_an_attacker_compares_the_columns_that_were_sent(
    intercept: Callable[..., Capture], network: str, layer: str
) -> None:
    capture = intercept(defense="soteria", settings={"probes": 1, "pruned": 0.4}, network=network)
    assert isinstance(capture.seen.update, Update)
    adaptation = adapt_to(capture.seen)
    assert adaptation.sparse
    assert not adaptation.missed
    (transform,) = create("defenses", "soteria", {"pruned": 0.4}).replay(1).mean
    ones = {name: torch.ones_like(v)[None] for name, v in capture.seen.update.tensors.items()}
    made = transform(ones, generator())
    for name, value in ones.items():
        pruned = round(0.4 * value.shape[2]) if name == f"{layer}.weight" else 0
        assert int((made[name] == 0).sum()) == pruned * value.shape[1]
    bodies = {name: v for name, v in ones.items() if v.dim() != 3}
    assert set(transform(bodies, generator())) == set(bodies)


def test_a_layer_that_stays_on_the_device_needs_no_defense(
    federate: Callable[..., Simulation],
) -> None:
    settings = {"of": ["private_projector", "soteria"]}
    simulation = federate(network="small_cnn", defense="chain", settings=settings)
    photos = simulation.split.train[simulation.split.clients[0][0]][:1]
    returned = simulation.step(simulation.fresh(), 0, photos, LocalTraining(), generator())
    (update,) = [s for s in returned.shared if isinstance(s, Update)]
    assert not any(name.startswith("embedding.") for name in update.tensors)
    assert bool((returned.kept["embedding.weight"] != 0).all())


@pytest.mark.parametrize("layer", ["embeding", "body", "body.0"])
def test_a_layer_that_is_none_is_refused(intercept: Callable[..., Capture], layer: str) -> None:
    with pytest.raises(ConfigError, match=f"{layer}.*embedding, head"):
        intercept(network="small_cnn", defense="soteria", settings={"layer": layer})


@pytest.mark.parametrize("settings", [{"pruned": 1.0}, {"probes": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(*settings.values())):
        create("defenses", "soteria", settings)
