"""Networks made fit for DP-SGD: what changes, what does not, and what per-sample gradients say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.func import functional_call

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.dp_compatible import dp_compatible_spec, list_changes, make_dp_compatible
from fedaudit.models.facenet import FaceNet
from fedaudit.models.method_heads import spec_with_head, without_head

SIZE = 32


def of_torchvision(*, name: str, classes: int, image_size: int) -> nn.Module:
    del image_size
    made: nn.Module = getattr(torchvision.models, name)(num_classes=classes)
    return made


def spec_of(factory: str, **arguments: Any) -> ModelSpec:
    return ModelSpec(factory, {"classes": 4, "image_size": SIZE, **arguments})


TORCHVISION = spec_of(f"{__name__}:of_torchvision", name="resnet18")
CASES = {
    "resnet18 of torchvision": TORCHVISION,
    "resnet18_bn": spec_of("resnet18_bn"),
    "convnet": spec_of("convnet", width=12),
}


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def normless(model: nn.Module) -> nn.Module:
    """Every norm taken out, so that the rest of two networks can be compared."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, nn.Identity())
    return model


@pytest.mark.parametrize("name", CASES)
def test_passes_the_validator_and_differs_in_its_norms_alone(name: str) -> None:
    spec = CASES[name]
    plain, private = build(spec, seed=5), build(dp_compatible_spec(spec), seed=5)
    assert ModuleValidator.validate(plain, strict=False)
    assert not ModuleValidator.validate(private, strict=False)
    before, after = parameters_of(plain), parameters_of(private)
    assert list(before) == list(after)  # an update fits either
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert isinstance(private, FaceNet) == isinstance(plain, FaceNet)
    torch.testing.assert_close(normless(private)(images()), normless(plain)(images()))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_per_sample_gradients_are_those_of_single_images(name: str) -> None:
    model = build(dp_compatible_spec(CASES[name])).double()
    labels = torch.tensor([0, 3, 1])
    photos, rows = images().double().requires_grad_(), []  # or Opacus' hooks warn
    for image, label in zip(photos, labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        rows.append(torch.autograd.grad(loss, list(model.parameters())))
    wrapped = GradSampleModule(model)
    loss = F.cross_entropy(wrapped(photos), labels)
    torch.autograd.backward(loss)
    for number, (own, parameter) in enumerate(model.named_parameters()):
        sampled: Any = parameter
        expected = torch.stack([row[number] for row in rows])
        torch.testing.assert_close(sampled.grad_sample, expected, rtol=1e-6, atol=1e-9, msg=own)


def test_opacus_own_fix_is_not_enough_for_torchvision() -> None:
    """Why this module exists; if it fails one day, Opacus has learned to do it."""
    fixed = ModuleValidator.fix(build(TORCHVISION))
    with pytest.raises(RuntimeError, match=r"modified|in-?place"):
        torch.autograd.backward(GradSampleModule(fixed)(images()).sum())


def test_says_what_was_changed_and_why() -> None:
    changes = list_changes(TORCHVISION)
    assert (len(changes.norms), len(changes.activations), len(changes.sums)) == (20, 9, 8)
    assert changes.sums[0] == "layer1.0"
    norm, activation, block = changes.sentences()
    assert "batch norm in 20 layers was replaced by group norm: it mixes" in norm
    assert "9 in-place activations" in activation
    assert "8 blocks" in block
    assert list_changes(spec_of("face")).sentences() == ()
    assert list_changes(dp_compatible_spec(TORCHVISION)).sentences() == ()


def test_a_functional_call_reaches_what_was_rewritten() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            y = x.mean((2, 3)) * self.weight
            y += 1
            return F.relu(y.add_(1), inplace=True)

    model = Own()
    assert make_dp_compatible(model, SIZE).sums == ("",)
    given = functional_call(model, {"weight": torch.zeros(3)}, (images(),))
    torch.testing.assert_close(given, torch.full((3, 3), 2.0))
    model.weight.data.fill_(-100.0)
    assert float(model(images()).detach().sum()) == 0


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((2, 3)))
        y[:, 0] = 0
        return y


class Unused(Indexed):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((2, 3)))
        y.add_(1)  # its result is taken from y, which a rewritten forward would leave alone
        return y


@pytest.mark.parametrize("kind", [Indexed, Unused])
def test_what_cannot_be_rewritten_is_refused(kind: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"overwrites a tensor.*x = x \+ y"):
        make_dp_compatible(kind(), SIZE)


def test_a_method_finds_the_network_below_its_head() -> None:
    """FedFace trains it in public before round 1, with what a defense has made of it."""
    spec = spec_of("face", head="linear")
    headed = spec_with_head(spec, "pull", {"margin": 0.5})
    assert without_head(headed) == spec
    assert without_head(dp_compatible_spec(headed)) == dp_compatible_spec(spec)
