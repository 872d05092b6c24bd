"""Networks and losses that no attack could use: each is told what is wrong, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import UsageError
from fedaudit.models.derivatives import check_differentiable

SHAPE = (3, 8, 8)


@dataclass
class Outputs:
    """As libraries of transformers return them."""

    loss: Tensor | None
    logits: Tensor


class Net(nn.Module):
    """A fully connected layer, and a forward pass to be written."""

    def __init__(self, run: Callable[..., Any], loss: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.head, self.run = nn.Linear(192, 5), run
        if loss is not None:
            self.criterion = loss

    def forward(self, images: Tensor) -> Any:
        return self.run(self.head, images)


class Margin(Net):
    """A head that asks for labels, as code for face recognition has it."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        scores: Tensor = self.head(images.flatten(1))
        return scores - F.one_hot(labels, 5)


def plain(head: nn.Module, images: Tensor) -> Any:
    return head(images.flatten(1))


def in_place(head: nn.Module, images: Tensor) -> Any:
    return head(images.sub_(0.5).flatten(1))


def cut_off(head: nn.Module, images: Tensor) -> Any:
    with torch.no_grad():
        return head(images.flatten(1))


class Remembering(nn.Module):
    """Follows the range of what it sees, in every mode, as an observer does."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen = self.seen + 1
        scores: Tensor = self.head(images.flatten(1)) / self.seen
        return scores


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Margin(plain), "asks for 'labels' beside the images: .* criterion"),
        (Net(lambda h, x: plain(h, x.half())), r"layer head .*fails: .* x\.to\(self\.layer"),
        (Net(in_place), "writes into the images .* images.clone()"),
        (Net(lambda h, x: plain(h, x).squeeze()), r"gives \[5\] for one image"),
        (Net(lambda h, x: (x, plain(h, x))), r"gives tuple .* outputs: outputs\[1\]\)"),
        (Net(lambda h, x: {"logits": plain(h, x)}), r"gives dict .* outputs\['logits'\]\)"),
        (Net(lambda h, x: Outputs(None, plain(h, x))), r"gives Outputs .* outputs.logits\)"),
        (Net(lambda h, x: [plain(h, x)] * 2), r"it has \[0\], \[1\]"),
        (Net(lambda h, x: x), "Let its forward pass give these alone"),
        (Net(cut_off), "no parameter of the model has a gradient"),
        (Remembering(), "it remembers what it has seen"),
        (Net(plain, F.binary_cross_entropy_with_logits), "fails on scores .* whole numbers"),
        (Net(plain, nn.CrossEntropyLoss(reduction="none")), r"gives \[2\], and one number"),
    ],
)
def test_what_cannot_be_attacked_is_told(model: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        check_differentiable(model, SHAPE)
    assert "\n" not in str(refusal.value)
    assert ".." not in str(refusal.value)


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_what_can_be_is_let_through(loss: Callable[..., Any] | None) -> None:
    assert check_differentiable(Net(plain, loss), SHAPE)


def test_the_hook_that_is_advised_is_enough() -> None:
    model = Net(lambda h, x: {"logits": plain(h, x)})
    model.register_forward_hook(lambda module, inputs, outputs: outputs["logits"])
    assert check_differentiable(model, SHAPE)


def test_a_network_that_is_certain_has_second_derivatives() -> None:
    """The gradient for the class of which it is certain is rounding, and moves as it likes."""
    torch.manual_seed(0)
    head = nn.Linear(32, 5)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([90.0, 0, 0, 0, 0]))
        head.weight[:, :3] = 0.01
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Sigmoid(), head)
    assert check_differentiable(model, SHAPE)
