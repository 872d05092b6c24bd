"""The head is found by what gives the scores, whatever it is and wherever it lies."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.labels.head_gradient import read_head
from fedaudit.attacks.evidence.labels.infer import solve
from fedaudit.models.class_head import embeddings, find_class_head
from fedaudit.models.heads import ArcFaceHead, LinearHead

SHAPE = (3, 8, 8)
CLASSES, WIDTH = 9, 9  # a square matrix: its orientation shows in what it computes alone
Finish = Callable[[Tensor, "Ends"], Tensor]


class Ends(nn.Module):
    """Two fully connected layers, the head as a bare parameter registered before them."""

    def __init__(self, finish: Finish) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(CLASSES, WIDTH))
        self.offset = nn.Parameter(torch.randn(CLASSES))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, WIDTH))
        self.finish = finish

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        return self.finish(self.body(images), self)


ENDS: dict[str, tuple[Finish, tuple[str | None, bool, bool]]] = {
    "linear": (lambda x, m: F.linear(x, m.matrix, m.offset), ("offset", False, False)),
    "einsum": (
        lambda x, m: torch.einsum("bd,kd->bk", x, m.matrix) + m.offset,
        ("offset", False, False),
    ),
    "product": (lambda x, m: x @ m.matrix + m.offset, ("offset", True, False)),
    "cosines": (
        lambda x, m: F.linear(F.normalize(x), F.normalize(m.matrix)).clamp(-1, 1),
        (None, False, True),
    ),
    "columns": (
        lambda x, m: 30 * (F.normalize(x) @ F.normalize(m.matrix, dim=0)),
        (None, True, True),
    ),
    "log_softmax": (lambda x, m: F.log_softmax(F.linear(x, m.matrix), 1), (None, False, False)),
    "convolution": (
        lambda x, m: F.conv2d(x[..., None, None], m.matrix[..., None, None], m.offset).flatten(1),
        ("offset", False, False),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_is_found_by_what_it_computes(end: str) -> None:
    torch.manual_seed(0)
    finish, wanted = ENDS[end]
    model = Ends(finish).train()
    head = find_class_head(model, SHAPE)
    assert head is not None
    assert head.name == "matrix"
    assert (head.bias, head.transposed, head.unit) == wanted
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        inputs, rows = model.body(images), head.rows(model.matrix)
        if head.unit:
            inputs, rows = F.normalize(inputs), F.normalize(rows)
        products = inputs @ rows.T + (model.offset if head.bias else 0)
        torch.testing.assert_close(head.finish(products), model(images), atol=1e-4, rtol=1e-4)
        same = F.cosine_similarity(embeddings(model, images), model.body(images))
        assert bool((same > 0.9999).all())
    assert model.training


def test_a_head_under_autocast_is_found_whose_scores_are_widened_again() -> None:
    def finish(inputs: Tensor, ends: Ends) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.linear(inputs, ends.matrix, ends.offset).float()

    head = find_class_head(Ends(finish), SHAPE)
    assert head is not None
    assert (head.name, head.bias) == ("matrix", "offset")


def test_none_is_claimed_where_scores_are_something_else() -> None:
    for finish in (lambda x, m: F.linear(x, m.matrix).square(), lambda x, m: x * m.offset):
        assert find_class_head(Ends(finish), SHAPE) is None


@pytest.mark.parametrize("kind", [LinearHead, ArcFaceHead])
def test_labels_of_ten_thousand_classes_take_seconds(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    head: Any = kind(128, 10_572)
    rows = torch.randn(8, 128) * 0.5 + torch.randn(128) * 0.5
    labels = torch.randint(10_572, (8,))
    labels[1] = labels[0]
    model = nn.Sequential(head)
    model.criterion = head.criterion
    loss = head.criterion(head(rows), labels)
    names, parameters = zip(*model.named_parameters(), strict=True)
    target = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    began = time.process_time()
    found = read_head(model, target, 8, (128,))
    assert found is not None
    assert Counter(solve(found).tolist()) == Counter(labels.tolist())
    assert time.process_time() - began < 5


class Cut(nn.Module):
    """A network that gives scores of some of its last layer's rows alone."""

    def __init__(self, rows: slice, finish: Callable[[Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.Tanh())
        self.head, self.rows, self.finish = head, rows, finish

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        return self.finish(self.head(self.body(images))[:, self.rows])


def normed(head: nn.Module, scale: float = 1.0) -> nn.Module:
    made: nn.Module = nn.utils.parametrizations.weight_norm(head)
    with torch.no_grad():
        directions: Any = made.parametrizations
        directions.weight.original0.mul_(scale)
        directions.weight.original1.mul_(torch.rand(len(directions.weight.original1), 1) + 0.5)
    return made


def of_unit_lengths(head: nn.Module) -> nn.Module:
    made = normed(head)
    parts: Any = made.parametrizations
    nn.init.ones_(parts.weight.original0)
    return made


def of_one_length(head: nn.Module) -> nn.Module:
    """By weight norm over all rows together."""
    made: nn.Module = nn.utils.parametrizations.weight_norm(head, dim=None)  # type: ignore[arg-type]
    parts: Any = made.parametrizations
    nn.init.constant_(parts.weight.original0, 4.0)
    return made


HEADS: dict[str, Callable[[], nn.Module]] = {
    "cut": lambda: Cut(slice(0, 10), lambda x: x, nn.Linear(24, 20)),
    "end": lambda: Cut(slice(10, 20), lambda x: x, nn.Linear(24, 20)),
    "cut, without bias": lambda: Cut(slice(3, 13), lambda x: x, nn.Linear(24, 20, bias=False)),
    "cut, log-softmax": lambda: Cut(slice(0, 10), lambda x: F.log_softmax(x, 1), nn.Linear(24, 20)),
    "weight norm": lambda: Cut(slice(0, 10), lambda x: x, normed(nn.Linear(24, 10))),
    "one length": lambda: Cut(slice(0, 10), lambda x: x, of_one_length(nn.Linear(24, 10))),
    "cut, one length": lambda: Cut(slice(4, 14), lambda x: x, of_one_length(nn.Linear(24, 20))),
    "lengths of 1": lambda: Cut(slice(0, 10), lambda x: x, of_unit_lengths(nn.Linear(24, 10))),
    "cut, weight norm": lambda: Cut(slice(4, 14), lambda x: x, normed(nn.Linear(24, 20))),
    "negative lengths": lambda: Cut(slice(0, 10), lambda x: x, normed(nn.Linear(24, 10), -2.0)),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("labels", [[7], [3, 3, 0, 9]], ids=str)
def test_labels_behind_cut_scores_and_weight_norm(head: str, labels: list[int]) -> None:
    torch.manual_seed(0)
    model = HEADS[head]()
    images = torch.rand(len(labels), *SHAPE)
    scores = model(images)
    loss = F.cross_entropy(scores, torch.tensor(labels))
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    target = dict(zip(names, gradients, strict=True))
    found = read_head(model, target, len(labels), SHAPE)
    assert found is not None
    inputs = model.body(images).detach()  # type: ignore[operator]
    upstream = (scores.softmax(1) - F.one_hot(torch.tensor(labels), 10)).detach() / len(labels)
    torch.testing.assert_close(found.gradient, upstream.T @ inputs, atol=1e-5, rtol=1e-4)
    assert sorted(solve(found).tolist()) == sorted(labels)


def test_what_the_length_or_the_direction_alone_says_is_not_read() -> None:
    torch.manual_seed(0)
    model = HEADS["weight norm"]()
    whole = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    assert read_head(model, whole, 1, SHAPE) is not None
    for part in ("original0", "original1"):
        some = {name: value for name, value in whole.items() if part not in name}
        assert read_head(model, some, 1, SHAPE) is None


def test_a_head_is_not_looked_for_among_scores_that_say_nothing() -> None:
    """All columns of zeros are alike, and a softmax over all rows is none over those kept."""
    torch.manual_seed(0)
    zero = nn.Linear(24, 20)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    assert find_class_head(Cut(slice(0, 10), lambda x: x, zero), SHAPE) is None
    before = nn.Sequential(nn.Linear(24, 20), nn.LogSoftmax(1))
    assert find_class_head(Cut(slice(0, 10), lambda x: x, before), SHAPE) is None
