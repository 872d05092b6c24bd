import json
import pickle
import sys
import warnings
import zipfile
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
from fedaudit.scoring.embedder import load_embedder


@pytest.fixture(scope="module")
def gan() -> FaceGan:
    loaded = load_generator()
    assert isinstance(loaded, FaceGan)
    return loaded


@pytest.fixture
def z() -> Tensor:
    return torch.randn(4, 100, generator=torch.Generator().manual_seed(0))


def test_images_in_range_frozen_and_independent_of_each_other(gan: FaceGan, z: Tensor) -> None:
    images = gan(z)
    assert images.shape == (4, 3, 64, 64)
    assert 0 <= images.min() < 0.2
    assert 0.8 < images.max() <= 1
    assert not gan.training
    assert not any(p.requires_grad for p in gan.parameters())
    assert torch.allclose(gan(z[:1]), images[:1], atol=1e-5)  # batch norm in evaluation mode
    assert isinstance(gan, StagedGenerator)


def test_it_draws_faces(gan: FaceGan) -> None:
    """Trained weights: samples of one latent point agree, other points differ, no noise."""
    noise = torch.Generator().manual_seed(1)
    z = torch.randn(8, 100, generator=noise)
    near = z + 0.1 * torch.randn(8, 100, generator=noise)
    a, b = (load_embedder().embed(gan(x)) for x in (z, near))
    assert ((a @ b.T).argmax(1) == torch.arange(8)).all()


@pytest.mark.parametrize("stage", range(5))
def test_entering_half_way_gives_the_same_images(gan: FaceGan, z: Tensor, stage: int) -> None:
    feature = gan.features(z, stage)
    side = 4 * 2 ** (stage - 1)
    widths = (100, 512, 256, 128, 64)
    assert feature.shape == ((4, 100) if stage == 0 else (4, widths[stage], side, side))
    assert torch.equal(gan.forward_from(stage, feature), gan(z))


def test_gradients_reach_the_inner_map(gan: FaceGan, z: Tensor) -> None:
    feature = gan.features(z, 2).requires_grad_()
    (slope,) = torch.autograd.grad(gan.forward_from(2, feature).sum(), feature)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("stage", [-1, 5])
def test_stages_that_do_not_exist(gan: FaceGan, z: Tensor, stage: int) -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        gan.features(z, stage)


# --- generators of the user's own ---------------------------------------------------------------


class Toy(nn.Module):
    """`[N, D]` → `[N, C, 8, 8]`, through `squash`."""

    def __init__(self, dim: int = 128, channels: int = 3, signed: bool = False) -> None:
        super().__init__()
        self.signed, self.channels = signed, channels
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(dim, channels * 64)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.layer(z).view(-1, self.channels, 8, 8)
        return x.tanh() if self.signed else x.sigmoid()


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


def script(model: nn.Module, path: Path, dim: int = 128) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model.eval(), torch.randn(2, dim)).save(path)  # type: ignore[no-untyped-call]
    return str(path)


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


def exported(model: nn.Module, path: Path) -> str:
    example = (torch.randn(2, 128),)
    program = torch.export.export(
        model.eval(), example, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, path)
    return str(path)


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


def script_with(model: nn.Module, path: Path, settings: dict[str, object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.script(model.eval()),
            path,
            _extra_files={"fedaudit.json": json.dumps(settings)},
        )
    return str(path)


class Spatial(nn.Module):
    """Takes `[N, 6, 2, 2]`, answers in [0, 255]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(6, 3, 4, 4)

    def forward(self, z: Tensor) -> Tensor:
        return 255 * torch.sigmoid(self.layer(z))


SPATIAL: dict[str, object] = {
    "latent_shape": [6, 2, 2],
    "distribution": "uniform",
    "range": [0, 255],
}


@pytest.mark.parametrize("beside", [False, True])
def test_settings_in_the_file_and_beside_it(tmp_path: Path, beside: bool) -> None:
    model = Spatial()
    source = script_with(model, tmp_path / "own.ts", {} if beside else SPATIAL)
    if beside:
        (tmp_path / "own.ts.json").write_text(json.dumps(SPATIAL))
    loaded = load_generator(source)
    z = loaded.latents.draw(50, torch.Generator().manual_seed(0))
    assert z.shape == (50, 6, 2, 2)
    assert loaded.latent_dim == 24
    assert z.abs().max() <= 1
    assert z.std() == pytest.approx(1 / 3**0.5, rel=0.1)
    assert torch.allclose(loaded(z), model(z) / 255, atol=1e-6)


def test_settings_of_an_export(tmp_path: Path) -> None:
    source = exported(Toy(), tmp_path / "toy.pt2")
    settings = {"distribution": "truncated", "truncation": 0.5, "crop": [0.1, 0.9, 0, 1]}
    (tmp_path / "toy.pt2.json").write_text(json.dumps(settings))
    loaded = load_generator(source)
    assert loaded.latents.draw(20, torch.Generator()).abs().max() <= 0.5
    assert loaded.crop == (0.1, 0.9, 0, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"latent_shap": [3]}', "latent_shap: Extra inputs"),
        ('{"latent_shape": []}', "latent_shape"),
        ('{"latent_shape": [-1]}', "latent_shape.0"),
        ('{"latent_shape": [99999, 99999]}', "numbers"),
        ('{"distribution": "cauchy"}', "'normal', 'uniform' or 'truncated'"),
        ('{"low": 2}', "low must be below high"),
        ('{"range": [1, 0]}', "black below white"),
        ('{"range": [0, NaN]}', "range"),
        ('{"crop": [0.5, 0.2, 0, 1]}', "top < bottom"),
        ('{"truncation": 0}', "truncation"),
        (" " * 20_000, "over 10000 bytes"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, settings: str, said: str) -> None:
    source = script(Toy(), tmp_path / "toy.ts")
    (tmp_path / "toy.ts.json").write_text(settings)
    with pytest.raises(UsageError, match=said) as caught:
        load_generator(source)
    assert "toy.ts.json" in str(caught.value)


class Sampled(nn.Module):
    """Brings its sampler, scripted, with numbers far from a standard normal."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 48)

    def forward(self, w: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(w / 10)).view(-1, 3, 4, 4)

    @torch.jit.export
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return 4 + 10 * torch.randn([count, 7], generator=generator)


def test_a_scripted_sampler(tmp_path: Path, factories: ModuleType) -> None:
    source = script_with(Sampled(), tmp_path / "own.ts", {})
    factories.make = Sampled  # type: ignore[attr-defined]
    for place in (source, "toy_generators:make"):
        loaded = load_generator(place)
        drawn = loaded.latents.draw(3, torch.Generator().manual_seed(1))
        expected = 4 + 10 * torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(drawn, expected)
        assert isinstance(loaded.latents.mean, Tensor)
        assert torch.allclose(loaded.latents.mean, torch.tensor(4.0), atol=1.5)


def test_a_sampler_that_fails(factories: ModuleType) -> None:
    def broken(count: int, generator: torch.Generator) -> Tensor:
        raise RuntimeError("no mapping network")

    toy = Toy()
    toy.sample = broken  # type: ignore[assignment]
    factories.make = lambda: toy  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"no mapping network\. It must be"):
        load_generator("toy_generators:make")


def test_declared_ranges_are_held_to(factories: ModuleType) -> None:
    toy = Toy(signed=True)
    toy.output_range = (0, 1)  # type: ignore[assignment]
    factories.make = lambda: toy  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"values -0.\d+ to .* in \[0.0, 1.0\], as it declares"):
        load_generator("toy_generators:make")
    toy.output_range = "white"  # type: ignore[assignment]
    with pytest.raises(UsageError, match="two numbers"):
        load_generator("toy_generators:make")


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


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("name", ["evil.pt", "evil.ts", "evil.pt2"])
def test_pickles_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Evil()}, name)
    with pytest.raises(UsageError):
        load_generator(name)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "record",
    ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/aotinductor/a.so"],
)
def test_exports_with_pickles_or_compiled_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    """A genuine export in which one record was replaced by, or got, something that would run."""
    monkeypatch.chdir(tmp_path)
    exported(Toy(), Path("toy.pt2"))
    torch.save(_Evil(), "evil.bin")
    payload = Path("evil.bin").read_bytes() if record.endswith(".pt") else pickle.dumps(_Evil())
    with zipfile.ZipFile("toy.pt2") as source, zipfile.ZipFile("evil.pt2", "w") as target:
        for name in source.namelist():
            if not name.endswith(record):
                target.writestr(name, source.read(name))
        target.writestr(f"toy/{record}", payload)
    with pytest.raises(UsageError):
        load_generator("evil.pt2")
    assert not Path("executed").exists()


def test_own_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"netG_state_dict": Toy().state_dict()}, tmp_path / "weights.tar")
    monkeypatch.setenv("FEDAUDIT_ASSET_FACE_GAN", str(tmp_path / "weights.tar"))
    generator._face_gan.cache_clear()
    with pytest.raises(AssetError, match="FEDAUDIT_ASSET_FACE_GAN"):
        load_generator()
