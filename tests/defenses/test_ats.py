"""ATS: its operations against Pillow, derivatives, draws; what the client trains on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.ats import ATS, draw_policy, parse_policy
from fedaudit.defenses.augmentations import OPERATIONS, rotate

STEPLESS = ("posterize", "equalize")


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def colorful(faces: FaceSet) -> Tensor:
    """Faces on eight bits, tinted so that channels differ."""
    images = faces.images[[0, 55, 230]] * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    return (images * 255).round() / 255


@pytest.mark.parametrize(
    ("name", "amount", "theirs"),
    [
        ("brightness", 0.3, lambda i: ImageEnhance.Brightness(i).enhance(1.3)),
        ("contrast", -0.4, lambda i: ImageEnhance.Contrast(i).enhance(0.6)),
        ("color", 0.5, lambda i: ImageEnhance.Color(i).enhance(1.5)),
        ("sharpness", -0.5, lambda i: ImageEnhance.Sharpness(i).enhance(0.5)),
        ("invert", 0.0, ImageOps.invert),
        ("solarize", 100 / 255, lambda i: ImageOps.solarize(i, 100)),
        ("posterize", 4.0, lambda i: ImageOps.posterize(i, 4)),
        ("autocontrast", 0.0, ImageOps.autocontrast),
    ],
)
def test_operations_are_pillows(
    name: str, amount: float, theirs: Callable[[Image.Image], Image.Image], colorful: Tensor
) -> None:
    ours = OPERATIONS[name].transform(colorful, torch.full((3,), amount))
    expected = torch.stack([tensor(theirs(picture(image))) for image in colorful])
    inner = (..., slice(1, -1), slice(1, -1))  # Pillow leaves the border unsmoothed
    assert float((ours[inner] - expected[inner]).abs().max()) <= 2.5 / 255  # it rounds in between


def test_geometry_goes_where_it_should(colorful: Tensor) -> None:
    half = torch.full((3,), 0.25)
    left = OPERATIONS["translate_x"].transform(colorful, half)
    assert torch.allclose(left[..., :24], colorful[..., 8:], atol=1e-5)
    assert (left[..., 24:] == 0).all()
    up = OPERATIONS["translate_y"].transform(colorful, -half)
    assert torch.allclose(up[:, :, 8:], colorful[:, :, :24], atol=1e-5)
    quarter = rotate(colorful, torch.full((3,), 90.0))
    assert torch.equal(quarter, torch.stack([torch.rot90(i, 1, (1, 2)) for i in colorful]))
    nearly = rotate(colorful, torch.full((3,), 89.999))
    assert torch.allclose(nearly, quarter, atol=1e-2)
    sheared = OPERATIONS["shear_x"].transform(colorful, torch.full((3,), 0.3))
    middle = sheared[..., 15:17, 8:24]
    assert torch.allclose(middle, colorful[..., 15:17, 8:24], atol=0.08)
    assert float((sheared - colorful)[..., 0, :].abs().mean()) > 0.05


def test_equalize_spreads_values_evenly(colorful: Tensor) -> None:
    flat = OPERATIONS["equalize"].transform(colorful, torch.zeros(3)).flatten(2)
    assert float((flat.mean(2) - 0.5).abs().max()) < 0.05
    order = colorful.flatten(2).argsort(2)
    assert (flat.gather(2, order).diff(dim=2) >= -1e-6).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_derivative(name: str, colorful: Tensor) -> None:
    """Against finite differences where there are any; straight through elsewhere."""
    kind = OPERATIONS[name]
    amount = torch.full((3,), kind.least + (kind.most - kind.least) * 0.5, dtype=torch.double)
    untied = torch.rand(colorful.shape, generator=noise(2), dtype=torch.double)
    images = (0.2 + 0.6 * colorful + 0.01 * untied).requires_grad_()
    changed = kind.transform(images, amount)
    assert changed.shape == images.shape
    weights = torch.randn(images.shape, generator=noise(), dtype=torch.double)
    (slope,) = torch.autograd.grad((changed * weights).sum(), images)
    assert float(slope.abs().sum()) > 0
    if name in STEPLESS:
        assert torch.allclose(slope, weights)
        return
    along = torch.randn(images.shape, generator=noise(1), dtype=torch.double)
    ahead, behind = (kind.transform(images + h * along, amount) for h in (1e-7, -1e-7))
    numeric = ((ahead - behind) * weights).sum() / 2e-7
    torch.testing.assert_close((slope * along).sum(), numeric, rtol=1e-4, atol=1e-3)


def test_each_photo_draws_its_policy(colorful: Tensor) -> None:
    transform = draw_policy((parse_policy("invert:0"), parse_policy("brightness:0")))
    images = colorful[:1].expand(40, -1, -1, -1)
    labels = torch.arange(40)
    changed, kept = transform(images, labels, noise())
    assert kept is labels
    same = (changed == images).flatten(1).all(1)
    assert 8 < int(same.sum()) < 32
    assert torch.allclose(changed[~same], 1 - images[~same])
    assert torch.equal(transform(images, labels, noise())[0], changed)
    assert not torch.equal(transform(images, labels, noise(1))[0], changed)


def test_a_strength_is_a_share_of_the_range(colorful: Tensor) -> None:
    transform = draw_policy((parse_policy("contrast:6"),))
    changed, _ = transform(colorful, torch.arange(3), noise(5))
    either = [
        OPERATIONS["contrast"].transform(colorful, torch.full((3,), s / 3)) for s in (1.0, -1.0)
    ]
    for k in range(3):
        assert any(torch.allclose(changed[k], one[k], atol=1e-6) for one in either)


def test_the_client_trains_on_what_an_attacker_replays(federate: Any) -> None:
    """The step sees the transform's images, drawn from the task's generator; all else is as
    before."""
    seen: list[ClientTask] = []

    def step(task: ClientTask) -> ClientReturn:
        seen.append(task)
        return ClientReturn(())

    simulation = federate(network="small_cnn")
    defense = ATS()
    images = simulation.faces.images[:6]
    task = ClientTask(
        model=simulation.spec(0),
        before={},
        kept={},
        images=images,
        labels=torch.arange(6),
        training=LocalTraining(),
        share="gradient",
        generator=noise(),
        unlabelled=images[:2],
    )
    defense(step)(task)
    (transform,) = defense.replay(6).images
    assert torch.equal(seen[0].images, transform(images, torch.arange(6), noise())[0])
    assert seen[0].unlabelled is not None
    assert not torch.equal(seen[0].unlabelled, images[:2])
    same = replace(seen[0], images=images, unlabelled=task.unlabelled)
    assert same == task


@pytest.mark.parametrize(
    "policies", [(), ("",), ("wizardry:3",), ("invert",), ("invert:10",), ("invert:-1",)]
)
def test_policies_that_make_no_sense(policies: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="polic"):
        ATS(policies=policies)
