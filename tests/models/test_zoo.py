"""The networks: their size, that images do not see each other, that Opacus accepts them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedaudit.core.errors import AttackError, ConfigError, UnknownNameError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import describe, names
from fedaudit.models.batch_norm import batch_norm_layers, client_mode
from fedaudit.models.bodies import residual_body
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import FaceNet, criterion_of, require_face_net

LARGE = ("iresnet18", "iresnet50", "vit_s")


def each(names: Iterable[str]) -> list[Any]:
    """Names as parameters of a test, those of large networks for the slow ones."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in names]


NETWORKS = each(names("networks"))
_COUPLED = ("convnet", "resnet18_bn", "iresnet18", "iresnet50", "mobilefacenet")
COUPLED = each(_COUPLED)
"""Networks whose batch norm lets the images of a batch see each other."""
APART = each(name for name in names("networks") if name not in _COUPLED)
GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def spec(network: str, size: int = 32, **arguments: Any) -> ModelSpec:
    return ModelSpec(network, {"classes": 7, "image_size": size, **arguments})


def images(count: int, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_face_has_half_a_million_parameters() -> None:
    model = build(ModelSpec("face", {"classes": 20}))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.57e6, rel=0.02)


def test_lenet_is_zhus() -> None:
    model = build(ModelSpec("lenet", {"classes": 10}))
    # 3·12·25 + 12, twice 12·12·25 + 12, 768·10 + 10
    assert sum(p.numel() for p in model.parameters()) == 15826
    assert all(0.3 < float(p.detach().abs().max()) <= 0.5 for p in model.parameters())


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("network", NETWORKS)
def test_forward_and_backward(network: str, size: int, gradient_of: GradientOf) -> None:
    model = require_face_net(build(spec(network, size)), "the test")
    assert model.training
    assert describe("networks", network)
    batch = images(2, size)
    assert model(batch).shape == (2, 7)
    assert model.features(batch).dim() == 2
    torch.testing.assert_close(model.embed(batch).norm(dim=1), torch.ones(2))
    gradient = gradient_of(model, batch, torch.tensor([1, 4]))
    assert all(bool(g.isfinite().all()) for g in gradient.values())
    assert all(float(g.norm()) > 0 for g in gradient.values())


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        ("iresnet18", 24.02),
        pytest.param("iresnet50", 43.59, marks=pytest.mark.slow),
        ("mobilefacenet", 1.0),
        pytest.param("vit_s", 21.6, marks=pytest.mark.slow),
    ],
)
def test_deployed_networks_have_the_papers_parameters(network: str, millions: float) -> None:
    """iResNet as InsightFace counts it, at 512; MobileFaceNet's table; DeiT-S with its patches."""
    model = build(ModelSpec(network, {"classes": 10})).eval()
    body = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head."))
    assert body / 1e6 == pytest.approx(millions, rel=0.01)
    assert model(images(1, 112)).shape == (1, 10)


@pytest.mark.parametrize("network", APART)
def test_the_batch_gradient_is_the_mean_of_the_images(
    network: str, gradient_of: GradientOf
) -> None:
    """No coupling across a batch: what round-wise search and per-sample clipping rest on."""
    model = build(spec(network)).double()
    batch, labels = images(3).double(), torch.tensor([0, 3, 3])
    whole = gradient_of(model, batch, labels)
    parts = [gradient_of(model, batch[i : i + 1], labels[i : i + 1]) for i in range(3)]
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean(0)
        torch.testing.assert_close(mean, value, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("network", COUPLED)
def test_batch_norm_couples_a_batch_and_dp_sgd_refuses_it(
    network: str, gradient_of: GradientOf
) -> None:
    model = build(spec(network))
    assert ModuleValidator.validate(model, strict=False)
    batch, labels = images(4), torch.tensor([0, 3, 5, 5])

    def gradients(size: int) -> list[Tensor]:
        parts = [slice(first, first + size) for first in range(0, 4, size)]
        return [gradient_of(model, batch[p], labels[p])["body.1.weight"] for p in parts]

    (whole,) = gradients(4)
    assert (torch.stack(gradients(2)).mean(0) - whole).norm() > 0.1 * whole.norm()
    client_mode(model, LocalTraining(batch_norm="eval"))
    (whole,) = gradients(4)
    torch.testing.assert_close(torch.stack(gradients(2)).mean(0), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("norm", "coupled"), [("batch", True), ("group", False), ("none", False)])
def test_convnet_has_the_norm_that_was_asked_for(norm: str, coupled: bool) -> None:
    model = build(spec("convnet", norm=norm))
    assert (ModuleValidator.validate(model, strict=False) == []) != coupled
    # 8 convolutions and a head on 3×3×256 values.
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert weights == 64 * 27 + 9 * 64 * (128 + 2 * 128 + 2 * 256 + 4 * 1024) + 2304 * 7
    fresh = batch_norm_layers(model).values()
    assert all(not bool(torch.as_tensor(layer.running_mean).any()) for layer in fresh)


def test_a_face_network_with_batch_norm() -> None:
    model = build(spec("face", norm="batch"))
    assert len(batch_norm_layers(model)) == 7
    assert ModuleValidator.validate(model, strict=False)
    same = {name: p.shape for name, p in build(spec("face")).named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == same


@pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
@pytest.mark.parametrize(
    "network", [n for n in APART if isinstance(n, str)]
)  # attention of its own
def test_opacus_gives_each_images_gradient(network: str, gradient_of: GradientOf) -> None:
    model = build(spec(network))
    assert ModuleValidator.validate(model, strict=False) == []
    batch, labels = images(2), torch.tensor([0, 3])
    alone = [gradient_of(model, batch[i : i + 1], labels[i : i + 1]) for i in range(2)]
    wrapped: Any = GradSampleModule(model)
    torch.autograd.backward(criterion_of(model)(wrapped(batch), labels))
    for name, parameter in model.named_parameters():
        sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
        for i in range(2):
            scale = float(alone[i][name].abs().max())
            torch.testing.assert_close(sample[i], alone[i][name], rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("head", ["linear", "cosface", "arcface", "adaface"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_head_on_every_network(network: str, head: str) -> None:
    scores = build(spec(network, head=head)).eval()(images(1))
    assert scores.shape == (1, 7 + (head == "adaface"))
    assert int(scores.argmax()) < 7


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "own_networks:Plain"])
def test_our_heads_stand_behind_any_network(
    name: str,
    gradient_of: GradientOf,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    _importable(monkeypatch, request)
    model = require_face_net(build(spec(name, head="arcface", dim=24)), "the test").eval()
    assert model.head.weight.shape == (7, 24)
    gradient = gradient_of(model, images(2), torch.tensor([1, 4]))
    assert float(gradient["head.weight"].norm()) > 0
    assert build(spec("own_networks:own_factory"))(images(1)).shape == (1, 7)


def test_larger_images_keep_the_map_at_four_by_four() -> None:
    widths = {
        size: require_face_net(build(spec("face", size)), "").features(images(1, size)).shape[1]
        for size in (32, 64, 128)
    }
    assert set(widths.values()) == {128 * 4 * 4}


def test_a_seed_decides_the_start_and_nothing_else_moves() -> None:
    before = torch.get_rng_state()
    one, two, three = (parameters_of(build(spec("face"), seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedding.weight"], three["embedding.weight"])


def test_what_is_missing_keeps_its_random_start() -> None:
    given = {"head.weight": torch.ones(7, 128)}
    model = parameters_of(build(spec("face"), given, seed=1))
    assert torch.equal(model["head.weight"], given["head.weight"])
    assert torch.equal(
        model["embedding.weight"], parameters_of(build(spec("face"), seed=1))["embedding.weight"]
    )


def test_parameters_are_copies() -> None:
    model = build(spec("small_cnn"))
    copied = parameters_of(model)
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert float(next(iter(copied.values())).norm()) > 0
    assert not any(value.requires_grad for value in copied.values())


# --- networks of the user's own -----------------------------------------------------------------


def own_factory(*, classes: int, image_size: int) -> FaceNet:
    return FaceNet(residual_body((8, 16)), image_size=image_size, classes=classes, dim=12)


def not_a_module(*, classes: int, image_size: int) -> str:
    return f"{classes} {image_size}"


class Plain(nn.Module):
    def __init__(self, *, classes: int, image_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * image_size**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x.flatten(1))
        return scores


def test_a_factory_by_import_path(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = _importable(monkeypatch, request)
    model = build(spec(f"{name}:own_factory"))
    assert model(images(2)).shape == (2, 7)
    plain = build(spec(f"{name}:Plain"))
    assert criterion_of(plain) is nn.functional.cross_entropy
    with pytest.raises(ConfigError, match="body, embedding and head"):
        require_face_net(plain, "this")
    with pytest.raises(ConfigError, match="returned str"):
        build(spec(f"{name}:not_a_module"))
    with pytest.raises(ConfigError, match="cannot import"):
        build(spec(f"{name}:nowhere"))


def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    import sys

    monkeypatch.setitem(sys.modules, "own_networks", request.module)
    return "own_networks"


# --- refusals -----------------------------------------------------------------------------------


def test_unknown_names_and_arguments() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'face'"):
        build(ModelSpec("fase", {}))
    with pytest.raises(UnknownNameError, match="did you mean 'dim'"):
        build(spec("face", dimm=3))
    with pytest.raises(ConfigError, match='head must be one of "cosface"'):
        build(spec("face", head="cosfase"))
    pool: Any = "averge"
    with pytest.raises(UnknownNameError, match="did you mean 'average'"):
        FaceNet(nn.Identity(), image_size=8, classes=2, pool=pool)


def test_parameters_of_another_architecture() -> None:
    with pytest.raises(AttackError, match=r"no parameter 'conv1\.weight'.*another architecture"):
        build(spec("face"), {"conv1.weight": torch.zeros(3)})
    with pytest.raises(AttackError, match=r"\(7, 128\) in the network and \(9, 128\)"):
        build(spec("face"), {"head.weight": torch.zeros(9, 128)})
