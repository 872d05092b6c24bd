"""Generators of the user's own: scripts, exports and factories, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fedaudit.core.errors import AssetError, ConfigError, UsageError
from fedaudit.models import generator
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.generator import Generator, StagedGenerator, load_generator

sys.path.insert(0, str(Path(__file__).parent))
from generator_files import Toy, exported, script


@pytest.fixture(scope="module")
def gan() -> FaceGan:
    loaded = load_generator()
    assert isinstance(loaded, FaceGan)
    return loaded


class Mapped(nn.Module):
    """Takes `z` as a 1×1 map, as DCGANs do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(100, 1, 8)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(z))


@pytest.fixture
def factories() -> Iterator[ModuleType]:
    module = ModuleType("toy_generators")
    sys.modules["toy_generators"] = module
    yield module
    del sys.modules["toy_generators"]


def check(source: str, dim: int, signed: bool, model: nn.Module) -> None:
    loaded = load_generator(source)
    assert isinstance(loaded, Generator)
    assert loaded.latent_dim == dim
    z = torch.randn(5, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    images = loaded(z)
    expected = model(z)
    assert torch.allclose(images, (expected + 1) / 2 if signed else expected, atol=1e-6)
    (slope,) = torch.autograd.grad(images.sum(), z)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("signed", [False, True])
def test_torchscript(tmp_path: Path, signed: bool) -> None:
    check(script(Toy(signed=signed), tmp_path / "toy.ts"), 128, signed, Toy(signed=signed))


def test_torch_export(tmp_path: Path) -> None:
    check(exported(Toy(), tmp_path / "toy.pt2"), 128, False, Toy())


@pytest.mark.parametrize("signed", [False, True])
def test_factory(factories: ModuleType, signed: bool) -> None:
    factories.make = lambda: Toy(256, signed=signed)  # type: ignore[attr-defined]
    check("toy_generators:make", 256, signed, Toy(256, signed=signed))


def test_factory_of_maps_and_of_stages(factories: ModuleType, gan: FaceGan) -> None:
    factories.make = Mapped  # type: ignore[attr-defined]
    loaded = load_generator("toy_generators:make")
    assert loaded.latents.shape == (100, 1, 1)
    assert loaded(torch.randn(2, 100)).shape == (2, 1, 8, 8)
    factories.staged = lambda: gan  # type: ignore[attr-defined]
    assert load_generator("toy_generators:staged") is gan


def test_width_from_the_settings(factories: ModuleType) -> None:
    factories.make = lambda: Toy(17)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="attribute latent_dim"):
        load_generator("toy_generators:make")
    assert load_generator("toy_generators:make", latent_dim=17).latent_dim == 17


class Fixed(nn.Module):
    """Gives the same, whatever it is asked."""

    latent_dim = 4

    def __init__(self, output: object, attached: bool = True) -> None:
        super().__init__()
        self.output, self.attached = output, attached

    def forward(self, z: Tensor) -> object:
        if isinstance(self.output, Tensor) and self.attached:
            return self.output + 0 * z.sum()
        return self.output


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(3, 2, 8, 8), r"\[3, 2, 8, 8\]"),
        (torch.zeros(3, 64), r"\[3, 64\]"),
        (torch.zeros(1, 3, 8, 8), r"\[1, 3, 8, 8\]"),
        (torch.zeros(0, 3, 8, 8), r"\[0, 3, 8, 8\]"),
        (torch.full((3, 3, 8, 8), 255.0), "values 255 to 255"),
        (torch.full((3, 3, 8, 8), float("nan")), "nan"),
        ("a picture", "gave str"),
    ],
)
def test_what_is_not_images_is_refused(factories: ModuleType, output: object, said: str) -> None:
    factories.make = lambda: Fixed(output)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=rf"{said}(.|\n)*Needed are images"):
        load_generator("toy_generators:make")


def test_images_without_gradient_are_refused(factories: ModuleType) -> None:
    factories.make = lambda: Fixed(torch.zeros(3, 3, 8, 8), attached=False)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="cut off from z"):
        load_generator("toy_generators:make")


def test_sources_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither 'face_gan'"):
        load_generator("stylegan")
    with pytest.raises(UsageError, match="no generator file"):
        load_generator(str(tmp_path / "absent.ts"))
    with pytest.raises(ConfigError):
        load_generator("no_such_package:make")
    torch.save(Toy().state_dict(), tmp_path / "state.pt")
    with pytest.raises(UsageError, match="state dict"):
        load_generator(str(tmp_path / "state.pt"))


class Unsteady(Toy):
    def forward(self, z: Tensor) -> Tensor:
        return (super().forward(z) + 0.1 * torch.rand(1)).clamp(0, 1)


class Stepped(nn.Module):
    """Attached to z, but flat in it."""

    latent_dim = 4

    def forward(self, z: Tensor) -> Tensor:
        return (0 * z.sum() + 0.5).expand(len(z), 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "said"), [(Unsteady, "other images for the same latent"), (Stepped, "is zero")]
)
def test_what_cannot_be_searched_is_refused(
    factories: ModuleType, make: type[nn.Module], said: str
) -> None:
    factories.make = make  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=said):
        load_generator("toy_generators:make")


class ForeignStages(nn.Module):
    """Of another's making: staged, signed, and without a word on its latents but their width."""

    latent_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(5, 48), nn.Tanh()])

    def features(self, z: Tensor, stage: int) -> Tensor:
        for inner in self.stages[:stage]:
            z = inner(z)
        return z

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        for inner in self.stages[stage:]:
            feature = inner(feature)
        return feature.view(-1, 3, 4, 4)

    def forward(self, z: Tensor) -> Tensor:
        return self.forward_from(0, z)


def test_foreign_stages_are_mapped_too(factories: ModuleType) -> None:
    factories.make = ForeignStages  # type: ignore[attr-defined]
    loaded = load_generator("toy_generators:make")
    assert isinstance(loaded, StagedGenerator)
    z = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for stage in range(2):
        entered = loaded.forward_from(stage, loaded.features(z, stage))
        assert torch.equal(entered, loaded(z))
    assert loaded(z).min() >= 0


def test_own_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"netG_state_dict": Toy().state_dict()}, tmp_path / "weights.tar")
    monkeypatch.setenv("FEDAUDIT_ASSET_FACE_GAN", str(tmp_path / "weights.tar"))
    generator._face_gan.cache_clear()
    with pytest.raises(AssetError, match="FEDAUDIT_ASSET_FACE_GAN"):
        load_generator()
