"""Settings of a generator's latents and values, in its file, beside it or in its sampler."""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fedaudit.core.errors import UsageError
from fedaudit.models.generator import load_generator

sys.path.insert(0, str(Path(__file__).parent))
from generator_files import Toy, exported, script


@pytest.fixture
def factories() -> Iterator[ModuleType]:
    module = ModuleType("toy_generators")
    sys.modules["toy_generators"] = module
    yield module
    del sys.modules["toy_generators"]


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
