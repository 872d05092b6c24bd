"""Networks that know nothing of fedaudit, cut in the parts that attacks know."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import ForeignFaceNet, adopt

SHAPE = (3, 32, 32)


class Quickstart(nn.Module):
    """The convolutional network of many a tutorial."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 5, padding=2)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 8 * 8, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.sigmoid(self.conv1(x)))
        x = self.pool(torch.sigmoid(self.conv2(x)))
        scores: Tensor = self.fc2(F.relu(self.fc1(x.view(x.size(0), -1))))
        return scores


class Named(nn.Module):
    """Its parts have names that `FaceNet` uses for others."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.Sigmoid())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 7 * 7, 32), nn.Tanh())
        self.body = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(self.head(self.features(x)))
        return scores


class Skips(Quickstart):
    """Something passes the first fully connected layer by."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean((1, 2, 3))[:, None]


class Scales(Quickstart):
    """Uses a parameter outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)


class Branches(Quickstart):
    """Cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def network(kind: type[nn.Module] = Quickstart, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(**arguments)


@pytest.mark.parametrize(("kind", "entry"), [(Quickstart, "fc1"), (Named, "head.1")])
def test_the_same_function_with_the_same_names(kind: type[nn.Module], entry: str) -> None:
    plain = network(kind)
    made = adopt(plain, SHAPE)
    assert isinstance(made, ForeignFaceNet)
    assert made.first_fc_name == f"{entry}.weight"
    assert dict(made.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert made.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(3, *SHAPE)
    assert torch.equal(made(images), plain(images))
    assert torch.equal(made.head(made.embedding(made.features(images))), plain(images))
    assert made.features(images).shape == (3, made.embedding.in_features)
    assert made.get_parameter(made.first_fc_name) is plain.get_parameter(made.first_fc_name)


@pytest.mark.parametrize("kind", [Quickstart, Named])
def test_parameters_can_be_replaced_in_all_parts(kind: type[nn.Module]) -> None:
    """As attacks do, who never write into the network."""
    made = adopt(network(kind), SHAPE)
    other = {n: torch.rand_like(p) for n, p in made.named_parameters()}
    images = torch.rand(2, *SHAPE)
    out = torch.func.functional_call(made, other, (images,))
    made.load_state_dict(other)
    assert torch.allclose(out, made(images))


@pytest.mark.parametrize("kind", [Skips, Branches, Scales])
def test_what_cannot_be_cut_stays_as_it_is(kind: type[nn.Module]) -> None:
    plain = network(kind)
    assert adopt(plain, SHAPE) is plain


def test_torchvision_networks_are_adopted() -> None:
    torchvision = pytest.importorskip("torchvision")
    made = adopt(torchvision.models.resnet18(num_classes=5), SHAPE)
    assert isinstance(made, ForeignFaceNet)
    assert made.pool == "average"
    assert made.first_fc_name == "fc.weight"
    wide = adopt(torchvision.models.squeezenet1_1(num_classes=5), SHAPE)
    assert not isinstance(wide, FaceNet)  # it has no fully connected layer


def seen(faces: Tensor, label: int) -> Observation:
    spec = ModelSpec(f"{__name__}:Quickstart", {"classes": 10})
    torch.manual_seed(0)
    model = Quickstart()
    loss = F.cross_entropy(model(faces), torch.tensor([label]))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    names = [n for n, _ in model.named_parameters()]
    before = {n: p.detach() for n, p in model.named_parameters()}
    update = Update("gradient", dict(zip(names, grads, strict=True)), 1)
    return Observation(spec, before, (update,), SHAPE, 1, 10)


def test_its_first_layer_gives_the_map_away(
    faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Quickstart.__module__])
    face = faces.images[:1]
    observed = seen(face, 4)
    found = gather(observed)
    assert found.first_fc is not None
    assert found.first_fc.maps is not None
    assert found.labels is not None
    assert found.labels.tolist() == [4]
    assert isinstance(found.model, FaceNet)
    true = found.model.features(face)
    assert F.cosine_similarity(found.first_fc.maps, true).item() > 0.999
    attack = inverting_gradients(steps=60, polish=0)
    made = attack(observed, generator=torch.Generator().manual_seed(0)).images
    assert float((made - face).square().mean()) < 0.01
