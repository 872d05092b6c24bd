"""Networks that a study names: a library's, or a user's factory in the current folder."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import ConfigError, FedauditError, UnknownNameError, UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.scenario import Study
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import measure
from fedaudit.models.build_network import build
from fedaudit.study.study_file import load_study

CODE = """
import torch
from torch import nn

def net(num_classes):
    layers = nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(64, 16), nn.ReLU(),
                         nn.Linear(16, num_classes))

def broken(num_classes):
    return nn.Linear("three", num_classes)

def small(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

class Random(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.noisy, self.last = Noise(), nn.Linear(3072, num_classes)
    def forward(self, x):
        return self.last(self.noisy(x.flatten(1)))

class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)

def raises(num_classes):
    raise RuntimeError("no weights at /data")

def classless():
    return nn.Linear(3, 4)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the user's code in it."""
    (tmp_path / "my_networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    sys.modules.pop("my_networks", None)


def load(folder: Path, network: str, *more: str) -> Study:
    study = folder / "study.toml"
    lines = ['name = "a"', "size = 32", "[[scenario]]", 'name = "s"', f'network = "{network}"']
    lines += more
    study.write_text("\n".join([*lines, 'attacks = ["inverting_gradients"]']))
    return load_study(study)


@pytest.mark.parametrize("network", ["my_networks:net", "torchvision:squeezenet1_1"])
def test_a_study_takes_a_network_by_its_name(here: Path, network: str) -> None:
    assert load(here, network).scenarios[0].network.name == network
    spec = ModelSpec(network, {"classes": 5, "image_size": 32})
    with torch.no_grad():
        assert build(spec).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("my_networks:broken", "refused its settings"),
        ("my_networks:small", r"does not take images \[3, 32, 32\]: layer 1 \(Linear\) fails"),
        ("my_networks:Random", "noisy.*random"),
        ("my_networks:classless", "takes no number of classes"),
        ("my_networks:absent", "cannot import"),
        ("my_networks:raises", r"'my_networks:raises' raised RuntimeError: no weights at /data"),
        ("torchvision:resnet19", "did you mean resnet18"),
    ],
)
def test_what_is_wrong_with_it_is_said_before_the_run(here: Path, network: str, why: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=why) as caught:
        load(here, network)
    assert isinstance(caught.value, FedauditError)
    assert "\n" not in str(caught.value)


def test_batch_norm_of_one_value_a_channel_is_said_before_the_run(here: Path) -> None:
    with pytest.raises(ConfigError, match=r'batch norm .* one image.*batch_norm = "eval"'):
        load(here, "mobilefacenet")
    load(here, "mobilefacenet", "batch_size = 2")
    load(here, "mobilefacenet", 'batch_norm = "eval"')


def test_a_network_is_not_pretrained_on_those_who_are_audited(here: Path) -> None:
    public = "federation = {pretrain_steps = 2, public = %s}"
    with pytest.raises(ConfigError, match=r"pre-trained on 'orl'.*public"):
        load(here, "face", public % '"orl"')
    with pytest.raises(UnknownNameError, match="data"):
        load(here, "face", public % '"orll"')
    method = 'method = {name = "fedface", public = "orl"}'
    with pytest.raises(ConfigError, match=r"method fedface: .* pre-trained on 'orl'.*public"):
        load(here, "face", method)
    study = load(here, "face", public % '"synthetic"')
    assert study.federation_of(study.scenarios[0]).pretrain_steps == 2


def test_its_accuracy_is_measured_like_ours(
    here: Path, federate: Callable[..., Simulation]
) -> None:
    sys.path.append(str(here))
    simulation = federate(network="my_networks:net")
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    training = simulation.federation.training
    photos = simulation.split.photos[0][:4]
    one, two = (
        simulation.step(simulation.fresh(), 0, photos, training, generator.manual_seed(0)).shared
        for _ in range(2)
    )
    assert torch.equal(before, torch.get_rng_state())  # dropout draws from the client's seed
    assert all(
        torch.equal(a, b)
        for a, b in zip(one[0].tensors.values(), two[0].tensors.values(), strict=True)  # type: ignore[attr-defined]
    )
    utility = measure(simulation, simulation.fresh(), rounds=0, seconds=0)
    assert utility is not None
    assert 0 <= utility.auc <= 1
