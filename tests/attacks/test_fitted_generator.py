import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.generators.face_generator import DEFAULT_CROP, FaceGenerator
from fedaudit.core.capture import Capture
from fedaudit.core.errors import UsageError
from fedaudit.core.registry import create


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Skewed(nn.Module):
    """Spatial latents `[N, 8, 2, 2]`, far from a standard normal."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.ConvTranspose2d(8, 3, 8, 8)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return 3 + 0.2 * torch.rand(count, 8, 2, 2, generator=generator)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.layer((z - 3) * 20))


@pytest.fixture
def skewed() -> Iterator[str]:
    module = ModuleType("skewed_generators")
    module.make = Skewed  # type: ignore[attr-defined]
    sys.modules["skewed_generators"] = module
    yield "skewed_generators:make"
    del sys.modules["skewed_generators"]


def test_the_face_gan_keeps_its_own_latents_and_crop() -> None:
    faces = FaceGenerator().load((3, 64, 64), grayscale=False)
    assert faces.crop == DEFAULT_CROP
    z = faces.sample(3, noise())
    assert torch.equal(z, torch.randn(3, 100, generator=noise()))
    whole = FaceGenerator(crop=(0, 1, 0, 1)).load((3, 64, 64), grayscale=False)
    assert torch.allclose(whole.images(z), whole.network(z))


def test_latents_are_in_units_of_their_spread(skewed: str) -> None:
    faces = FaceGenerator(source=skewed).load((3, 16, 16), grayscale=False)
    assert faces.crop == (0.0, 1.0, 0.0, 1.0)
    z = faces.sample(400, noise())
    assert z.shape == (400, 8, 2, 2)
    assert abs(z.mean().item()) < 0.05
    assert z.std().item() == pytest.approx(1, rel=0.05)
    own = Skewed().sample(400, noise())
    assert torch.allclose(faces.images(z[:5]), Skewed()(own[:5]), atol=1e-4)


def test_spatial_latents_in_an_attack(skewed: str, intercept: Callable[..., Capture]) -> None:
    settings = {
        "prior": skewed,
        "candidates": 8,
        "latent_steps": 6,
        "stages": (),
        "pixel_steps": 0,
        "rounds": 2,
    }
    attack = create("attacks", "gan_inversion", settings)
    seen = intercept(batch=2).seen
    one, two = (attack(seen, generator=noise()) for _ in range(2))
    assert one.images.shape == (2, 3, 32, 32)
    assert torch.equal(one.images, two.images)
    assert one.objective < float("inf")


def test_each_image_has_weights_of_its_own() -> None:
    faces = FaceGenerator().load((1, 32, 32), grayscale=True)
    z = faces.sample(2, noise())
    parameters = faces.parameters(2)
    assert all(value.is_leaf and value.requires_grad for value in parameters.values())
    start = faces.images_with(parameters, z)
    assert torch.allclose(start, faces.images(z), atol=1e-5)
    (slope,) = torch.autograd.grad(start[0].sum(), parameters["stages.2.0.weight"])
    assert slope[0].abs().sum() > 0
    assert not slope[1].any()
    with torch.no_grad():
        parameters["stages.4.0.weight"][1] *= 1.5
    moved = faces.images_with(parameters, z)
    assert torch.equal(moved[0], start[0])
    assert not torch.allclose(moved[1], start[1], atol=1e-2)
    assert torch.allclose(faces.images(z), start, atol=1e-5)  # the shared generator stays


def test_weights_searched_from_an_export(tmp_path: Path) -> None:
    program = torch.export.export(
        Skewed().eval(), (torch.ones(2, 8, 2, 2),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, tmp_path / "own.pt2")
    (tmp_path / "own.pt2.json").write_text('{"latent_shape": [8, 2, 2]}')
    faces = FaceGenerator(source=str(tmp_path / "own.pt2")).load((3, 16, 16), grayscale=False)
    z = faces.sample(2, noise())
    assert torch.allclose(faces.images_with(faces.parameters(2), z), faces.images(z), atol=1e-5)


def test_weights_that_cannot_be_searched(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path / "own.ts"
        torch.jit.trace(Skewed().eval(), torch.ones(2, 8, 2, 2)).save(path)  # type: ignore[no-untyped-call]
    (tmp_path / "own.ts.json").write_text('{"latent_shape": [8, 2, 2]}')
    faces = FaceGenerator(source=str(path)).load((3, 16, 16), grayscale=False)
    with pytest.raises(UsageError, match="TorchScript"):
        faces.parameters(1)
