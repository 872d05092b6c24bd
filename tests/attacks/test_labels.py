"""Labels in closed form: for every network and head, for batches, for repeated people."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.entry_layer import common_direction, find_entry
from fedaudit.attacks.labels import idlg, infer_labels
from fedaudit.data.faces import FaceSet
from fedaudit.models.bodies import group_norm, residual_body
from fedaudit.models.facenet import FaceNet
from fedaudit.models.zoo import build
from fedaudit.registry import names
from fedaudit.types import ModelSpec

GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
FOUR = [3, 7, 11, 20]
EIGHT = [0, 5, 9, 14, 17, 22, 30, 39]
REPEATED = [0, 1, 2, 2, 2, 3, 3, 9]
HEADS = ("linear", "cosface", "arcface")


def photos_of(faces: FaceSet, labels: list[int]) -> Tensor:
    """Photo k of person `label` for their k-th appearance; people have ten photos in a row."""
    seen: Counter[int] = Counter()
    rows = []
    for label in labels:
        rows.append(10 * label + seen[label])
        seen[label] += 1
    return faces.images[rows]


def inferred(
    model: nn.Module, images: Tensor, labels: list[int], gradient_of: GradientOf
) -> list[int]:
    target = gradient_of(model, images, torch.tensor(labels))
    entry = find_entry(model, target, len(labels))
    found = infer_labels(model, target, len(labels), common_direction(entry) if entry else None)
    assert found is not None
    assert found.dtype == torch.int64
    return [int(label) for label in found]


def network(name: str, head: str, seed: int = 0) -> nn.Module:
    return build(ModelSpec(name, {"classes": 40, "image_size": 32, "head": head}), seed=seed)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", names("networks"))
def test_one_image(name: str, head: str, faces: FaceSet, gradient_of: GradientOf) -> None:
    for seed, label in enumerate((0, 17, 39)):
        found = inferred(network(name, head, seed), photos_of(faces, [label]), [label], gradient_of)
        assert found == [label]


@pytest.mark.parametrize("labels", [FOUR, EIGHT, REPEATED, [5] * 4], ids=str)
@pytest.mark.parametrize("name", names("networks"))
def test_linear_heads_give_the_whole_multiset(
    name: str, labels: list[int], faces: FaceSet, gradient_of: GradientOf
) -> None:
    for seed in range(2):
        model = network(name, "linear", seed)
        assert inferred(model, photos_of(faces, labels), labels, gradient_of) == labels


@pytest.mark.parametrize("head", ["cosface", "arcface"])
@pytest.mark.parametrize("name", ["face", "face_pooled", "small_cnn", "mobile_face"])
def test_margin_heads_give_four_people(
    name: str, head: str, faces: FaceSet, gradient_of: GradientOf
) -> None:
    for seed in range(3):
        model = network(name, head, seed)
        assert inferred(model, photos_of(faces, FOUR), FOUR, gradient_of) == FOUR


@pytest.mark.parametrize("labels", [EIGHT, REPEATED], ids=["distinct", "repeated"])
@pytest.mark.parametrize("head", ["cosface", "arcface"])
@pytest.mark.parametrize("name", ["face", "face_pooled", "small_cnn", "mobile_face"])
def test_margin_heads_miss_at_most_one_of_eight(
    name: str, head: str, labels: list[int], faces: FaceSet, gradient_of: GradientOf
) -> None:
    for seed in range(3):
        found = inferred(network(name, head, seed), photos_of(faces, labels), labels, gradient_of)
        assert sum((Counter(found) & Counter(labels)).values()) >= 7


def test_a_map_of_either_sign(faces: FaceSet, gradient_of: GradientOf) -> None:
    """A body that does not end in an activation: its maps have no sign to go by."""
    body = nn.Sequential(residual_body((16, 32)), nn.Conv2d(32, 16, 1), group_norm(16))
    for head in HEADS:
        for seed in range(3):
            torch.manual_seed(seed)
            model = FaceNet(body, image_size=32, classes=40, head=head)
            assert inferred(model, photos_of(faces, [9]), [9], gradient_of) == [9]


def test_idlg_finds_the_row_that_points_away() -> None:
    noise = torch.Generator().manual_seed(0)
    for true in range(6):
        x = torch.randn(12, generator=noise)
        factor = torch.softmax(torch.randn(6, generator=noise), 0)
        factor[true] -= 1
        assert idlg(torch.outer(factor, x)) == true


def test_without_the_head_there_are_no_labels() -> None:
    assert (
        infer_labels(network("face", "cosface"), {"embedding.weight": torch.ones(2, 2)}, 1) is None
    )
    assert infer_labels(nn.Sequential(nn.Conv2d(3, 3, 1)), {}, 1) is None


def test_any_networks_last_linear_layer_is_its_head(gradient_of: GradientOf) -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5, bias=bias))
        images = torch.rand(3, 3, 2, 2)
        assert inferred(model, images, [0, 3, 3], gradient_of) == [0, 3, 3]
