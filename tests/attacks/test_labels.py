"""Labels in closed form: for every network and head, for batches, for repeated people."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    common_direction,
    embedding_span,
    find_first_fully_connected,
)
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, read_head
from fedaudit.attacks.evidence.labels.infer import RULES, idlg, infer_labels, solve_all
from fedaudit.core.errors import UnknownNameError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import names
from fedaudit.data.face_set import FaceSet
from fedaudit.models.bodies import group_norm, residual_body
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet

GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
SHAPE = (3, 32, 32)
FOUR = [3, 7, 11, 20]
EIGHT = [0, 5, 9, 14, 17, 22, 30, 39]
REPEATED = [0, 1, 2, 2, 2, 3, 3, 9]
HEADS = ("linear", "cosface", "arcface")
SMALL = [n for n in names("networks") if n not in ("iresnet18", "iresnet50", "vit_s")]


def photos_of(faces: FaceSet, labels: list[int]) -> Tensor:
    """Photo k of person `label` for their k-th appearance; people have ten photos in a row."""
    seen: Counter[int] = Counter()
    rows = []
    for label in labels:
        rows.append(10 * label + seen[label])
        seen[label] += 1
    return faces.images[rows]


def head_of(
    model: nn.Module, images: Tensor, labels: list[int], gradient_of: GradientOf
) -> HeadGradient:
    target = gradient_of(model, images, torch.tensor(labels))
    entry = find_first_fully_connected(model, target, len(labels))
    common = common_direction(entry) if entry else None
    span = embedding_span(entry) if entry else None
    head = read_head(model, target, len(labels), images.shape[1:], common, span)
    assert head is not None
    return head


def inferred(
    model: nn.Module,
    images: Tensor,
    labels: list[int],
    gradient_of: GradientOf,
    rule: str = "solve",
) -> list[int]:
    found = RULES[rule](head_of(model, images, labels, gradient_of))
    assert found.dtype == torch.int64
    return [int(label) for label in found]


def network(name: str, head: str, seed: int = 0) -> nn.Module:
    return build(ModelSpec(name, {"classes": 40, "image_size": 32, "head": head}), seed=seed)


@pytest.mark.parametrize("head", [*HEADS, "adaface"])
@pytest.mark.parametrize("name", SMALL)
def test_one_image(name: str, head: str, faces: FaceSet, gradient_of: GradientOf) -> None:
    for seed, label in enumerate((0, 17, 39)):
        model = network(name, head, seed)
        if name == "mobilefacenet":  # batch norm of one value
            model.eval()
        assert inferred(model, photos_of(faces, [label]), [label], gradient_of) == [label]


@pytest.mark.parametrize("labels", [EIGHT, REPEATED, [5] * 4], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_linear_heads_give_the_whole_multiset(
    name: str, labels: list[int], faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network(name, "linear")
    assert inferred(model, photos_of(faces, labels), labels, gradient_of) == labels


@pytest.mark.parametrize("head", ["cosface", "arcface"])
@pytest.mark.parametrize("name", ["face", "face_pooled", "small_cnn"])
def test_margin_heads_give_four_people(
    name: str, head: str, faces: FaceSet, gradient_of: GradientOf
) -> None:
    for seed in range(3):
        model = network(name, head, seed)
        assert inferred(model, photos_of(faces, FOUR), FOUR, gradient_of) == FOUR


@pytest.mark.parametrize(
    ("name", "labels"),
    # In small_cnn the embeddings of one person's photos are equal to rounding.
    [("face", EIGHT), ("face", REPEATED), ("face", [5] * 4), ("small_cnn", EIGHT)],
    ids=str,
)
@pytest.mark.parametrize("head", ["cosface", "arcface"])
def test_margin_heads_give_the_whole_multiset(
    name: str, head: str, labels: list[int], faces: FaceSet, gradient_of: GradientOf
) -> None:
    model = network(name, head)
    assert inferred(model, photos_of(faces, labels), labels, gradient_of) == labels


@pytest.mark.parametrize("head", ["cosface", "arcface"])
def test_without_the_span_margin_heads_miss_at_most_one_of_eight(
    head: str, faces: FaceSet, gradient_of: GradientOf
) -> None:
    found = inferred(network("face_pooled", head), photos_of(faces, EIGHT), EIGHT, gradient_of)
    assert sum((Counter(found) & Counter(EIGHT)).values()) >= 7


@pytest.fixture(scope="module")
def trained(faces: FaceSet) -> Callable[[str], FaceNet]:
    """`face` after two epochs on five photos of everybody, by head; enough to move all heads."""
    cache: dict[str, FaceNet] = {}

    def make(head: str) -> FaceNet:
        if head not in cache:
            model = network("face", head)
            assert isinstance(model, FaceNet)
            optimizer = torch.optim.SGD(model.parameters(), 0.05)
            rows = torch.tensor([10 * p + k for k in range(5, 10) for p in range(40)])
            for part in [*torch.split(rows, 20)] * 2:
                optimizer.zero_grad()
                loss = model.criterion(model(faces.images[part]), part // 10)
                torch.autograd.backward(loss)
                optimizer.step()
            cache[head] = model
        return cache[head]

    return make


@pytest.mark.parametrize("head", HEADS)
def test_a_trained_network_gives_the_whole_multiset(
    head: str, faces: FaceSet, gradient_of: GradientOf, trained: Callable[[str], FaceNet]
) -> None:
    model = trained(head)
    for labels in (REPEATED, [1, 1, 4, 4, 4, 4, 6, 9, 11, 17, 17, 21, 30, 33, 38, 38]):
        photos = photos_of(faces, labels)
        assert inferred(model, photos, labels, gradient_of) == labels


@pytest.mark.parametrize("head", ["linear", "cosface"])
def test_places_are_the_embeddings(
    head: str, faces: FaceSet, gradient_of: GradientOf, trained: Callable[[str], FaceNet]
) -> None:
    """What is solved for is each image's own embedding; an independent forward pass says so."""
    model, photos = trained(head), photos_of(faces, REPEATED)
    found = solve_all(head_of(model, photos, REPEATED, gradient_of))
    assert found is not None
    assert found.left == 0
    assert float(found.rest.norm()) < 1e-3
    with torch.no_grad():
        true = model.embedding(model.features(photos)).double()
    near = torch.cosine_similarity(found.places[:, None], true[None], dim=2)
    assert sorted(near.argmax(1).tolist()) == list(range(8))
    assert float(near.max(1).values.min()) > 0.9999
    assert [REPEATED[i] for i in near.argmax(1).tolist()] == found.labels.tolist()


def test_an_unknown_learning_rate_does_not_matter(faces: FaceSet, gradient_of: GradientOf) -> None:
    head = head_of(network("face", "cosface"), photos_of(faces, EIGHT), EIGHT, gradient_of)
    assert RULES["solve"](replace(head, gradient=0.01 * head.gradient)).tolist() == EIGHT


def test_nothing_is_claimed_under_noise(faces: FaceSet, gradient_of: GradientOf) -> None:
    head = head_of(network("face", "linear"), photos_of(faces, EIGHT), EIGHT, gradient_of)
    noise = torch.randn(head.gradient.shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(head, gradient=head.gradient + 0.1 * head.gradient.std() * noise)
    found = solve_all(noisy)
    assert found is not None
    assert found.left == 8
    assert len(RULES["solve"](noisy)) == 8


def test_published_rules_fail_where_they_must(faces: FaceSet, gradient_of: GradientOf) -> None:
    """Distinct labels are found by all of them; repeats by none that takes each class once."""
    model = network("small_cnn", "linear")
    for rule in ("bias", "grad_inversion", "votes", "solve"):
        assert inferred(model, photos_of(faces, EIGHT), EIGHT, gradient_of, rule) == EIGHT
    found = inferred(model, photos_of(faces, REPEATED), REPEATED, gradient_of, "bias")
    assert found != REPEATED
    assert set(found) >= set(REPEATED)
    assert inferred(model, photos_of(faces, [7]), [7], gradient_of, "idlg") == [7]


def test_unknown_rules_are_named(faces: FaceSet, gradient_of: GradientOf) -> None:
    model = network("face", "linear")
    target = gradient_of(model, photos_of(faces, [3]), torch.tensor([3]))
    with pytest.raises(UnknownNameError, match="did you mean 'votes'"):
        infer_labels(model, target, 1, SHAPE, rule="vote")


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
        infer_labels(network("face", "cosface"), {"embedding.weight": torch.ones(2, 2)}, 1, SHAPE)
        is None
    )
    assert infer_labels(nn.Sequential(nn.Conv2d(3, 3, 1)), {}, 1, SHAPE) is None


def test_any_networks_last_linear_layer_is_its_head(gradient_of: GradientOf) -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5, bias=bias))
        images = torch.rand(3, 3, 2, 2)
        assert inferred(model, images, [0, 3, 3], gradient_of) == [0, 3, 3]


@pytest.mark.parametrize("seed", range(8))
def test_one_image_before_a_head_without_bias_may_have_features_of_either_sign(seed: int) -> None:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.Tanh())
    model = nn.Sequential(body, nn.Linear(24, 10, bias=False))
    label = torch.tensor([seed])
    loss = F.cross_entropy(model(torch.rand(1, 3, 4, 4)), label)
    names, parameters = zip(*model.named_parameters(), strict=True)
    target = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    found = infer_labels(model, target, 1, (3, 4, 4))
    assert found is not None
    assert found.tolist() == [seed]
