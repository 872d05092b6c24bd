"""The first fully connected layer gives feature maps away, exactly or not at all."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    find_first_fully_connected,
    solve_upstream,
)
from fedaudit.attacks.evidence.feature_maps.map_separation import take_apart
from fedaudit.core.observation import ModelSpec
from fedaudit.data.face_set import FaceSet
from fedaudit.models.bodies import group_norm, residual_body
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, require_face_net

GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
DISTINCT = [0, 5, 9, 14, 17, 22, 30, 39]


def network(name: str = "face", head: str = "cosface", seed: int = 0) -> FaceNet:
    spec = ModelSpec(name, {"classes": 40, "image_size": 32, "head": head})
    return require_face_net(build(spec, seed=seed), "the test")


def batch(faces: FaceSet, labels: list[int]) -> tuple[Tensor, Tensor]:
    return faces.images[[10 * label for label in labels]], torch.tensor(labels)


def true_maps(model: FaceNet, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.features(images)


def error(maps: Tensor, truth: Tensor) -> float:
    return float((1 - F.cosine_similarity(maps, truth)).max())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *[
            (name, head)
            for name in ("face", "small_cnn")
            for head in ("linear", "cosface", "arcface")
        ],
        ("face_pooled", "linear"),
        ("resnet18", "linear"),
    ],
)
def test_one_images_map_is_exact(
    name: str, head: str, faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network(name, head)
    images, labels = batch(faces, [17])
    first_fc = find_first_fully_connected(model, gradient_of(model, images, labels), 1)
    assert first_fc is not None
    assert first_fc.maps is not None
    assert first_fc.upstream is not None
    assert error(first_fc.maps, true_maps(model, images)) < 1e-4
    # Together the two are the gradient, which has rank one.
    torch.testing.assert_close(
        first_fc.upstream.T @ first_fc.maps, first_fc.gradient, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("head", ["linear", "cosface", "arcface"])
def test_the_head_decides_the_sign_of_a_map_that_has_none(
    head: str, faces: FaceSet, gradient_of: GradientOf
) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        body = nn.Sequential(residual_body((16, 32)), nn.Conv2d(32, 16, 1), group_norm(16))
        model = FaceNet(body, image_size=32, classes=40, head=head)
        images, labels = batch(faces, [17])
        first_fc = find_first_fully_connected(model, gradient_of(model, images, labels), 1)
        assert first_fc is not None
        settled = take_apart(first_fc, model, labels)
        assert settled.maps is not None
        assert settled.upstream is not None
        assert error(settled.maps, true_maps(model, images)) < 1e-4
        torch.testing.assert_close(
            settled.upstream.T @ settled.maps, first_fc.gradient, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("head", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize("name", ["face", "small_cnn"])
def test_a_batch_is_taken_apart(
    name: str, head: str, count: int, faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network(name, head)
    images, labels = batch(faces, DISTINCT[:count])
    target = gradient_of(model, images, labels)
    first_fc = find_first_fully_connected(model, target, count)
    assert first_fc is not None
    assert first_fc.maps is None
    maps = true_maps(model, images)
    inside = (maps @ first_fc.span.T).norm(dim=1) / maps.norm(dim=1)
    torch.testing.assert_close(inside, torch.ones(count), rtol=1e-4, atol=0)
    apart = take_apart(first_fc, model, labels)
    assert apart.maps is not None
    assert error(apart.maps, maps) < 1e-4


def test_wrong_labels_or_repeated_ones_are_not_taken_apart(
    faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network()
    images, labels = batch(faces, DISTINCT[:4])
    first_fc = find_first_fully_connected(model, gradient_of(model, images, labels), 4)
    assert first_fc is not None
    assert take_apart(first_fc, model, torch.tensor([1, 2, 3, 4])).maps is None
    same = torch.tensor([3, 3, 7, 11])
    for name in ("face",):
        model = network(name)
        first_fc = find_first_fully_connected(
            model, gradient_of(model, faces.images[[30, 31, 70, 110]], same), 4
        )
        assert first_fc is not None
        assert take_apart(first_fc, model, same).maps is None


@pytest.mark.parametrize("count", [1, 4])
def test_noise_that_drowns_the_signal_gives_nothing(
    count: int, faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network()
    images, labels = batch(faces, DISTINCT[:count])
    target = gradient_of(model, images, labels)
    clean = target["embedding.weight"]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noise *= clean.norm() / noise.norm()
    assert (
        find_first_fully_connected(
            model, {**target, "embedding.weight": clean + 100 * noise}, count
        )
        is None
    )
    first_fc = find_first_fully_connected(
        model, {**target, "embedding.weight": clean + 0.3 * noise}, 1
    )
    assert first_fc is not None
    if count == 1:  # a little noise is no defense
        assert first_fc.maps is not None
        assert error(first_fc.maps, true_maps(model, images)) < 0.1


def test_where_there_is_nothing_to_find() -> None:
    model = network()
    shape = (128, 2048)
    assert find_first_fully_connected(model, {}, 1) is None  # the layer was not shared
    assert (
        find_first_fully_connected(model, {"embedding.weight": torch.ones(shape)}, 128) is None
    )  # full rank
    assert find_first_fully_connected(model, {"embedding.weight": torch.zeros(shape)}, 1) is None
    assert find_first_fully_connected(nn.Linear(2, 2), {"weight": torch.ones(2, 2)}, 1) is None
    assert (
        find_first_fully_connected(
            network("face_pooled", "cosface"), {"head.weight": torch.ones(9, 9)}, 1
        )
        is None
    )


def test_least_squares_gives_the_arriving_gradients(
    faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network()
    images, labels = batch(faces, DISTINCT[:4])
    first_fc = find_first_fully_connected(model, gradient_of(model, images, labels), 4)
    assert first_fc is not None
    apart = take_apart(first_fc, model, labels)
    assert apart.upstream is not None
    maps = true_maps(model, images)
    solved = solve_upstream(first_fc, maps)
    assert float((solved.T @ maps - first_fc.gradient).norm() / first_fc.gradient.norm()) < 0.01
    assert error(solved, apart.upstream) < 0.01


def test_equal_calls_give_equal_bits(faces: FaceSet, gradient_of: GradientOf) -> None:
    """Wherever the memory lies: torch.linalg.lstsq would not."""
    model = network()
    images, labels = batch(faces, DISTINCT[:4])
    first_fc = find_first_fully_connected(model, gradient_of(model, images, labels), 4)
    assert first_fc is not None
    first = take_apart(first_fc, model, labels).maps
    assert first is not None
    blocks = []
    for k in range(20):
        blocks.append(torch.empty(1001 + 37 * k))
        again = take_apart(first_fc, model, labels).maps
        assert again is not None
        assert torch.equal(first, again)
