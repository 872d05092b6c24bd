"""The loss of labels that are class probabilities, against sums written by hand."""

import pytest
import torch
import torch.nn.functional as F

from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.models.heads import ArcFaceHead, CosFaceHead, LinearHead
from fedaudit.models.soft_labels import loss_on, most_likely, probabilities

SOFT = torch.tensor([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]])


def cosines() -> torch.Tensor:
    return torch.rand(2, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def test_of_a_linear_head_it_is_torchs_cross_entropy() -> None:
    scores = cosines() * 5
    ours = loss_on(LinearHead(4, 3).criterion, scores, SOFT)
    torch.testing.assert_close(ours, F.cross_entropy(scores, SOFT))


def test_of_margin_heads_the_margin_enters_where_the_label_is() -> None:
    scores = cosines()
    for head, moved in (
        (CosFaceHead(4, 3), scores - 0.35),
        (ArcFaceHead(4, 3), (scores.acos() + 0.5).cos()),
    ):
        by_hand = torch.zeros(())
        for i in range(2):
            for k in range(3):
                logits = scores[i].clone()
                logits[k] = moved[i, k]
                logits = 16 * logits
                by_hand += SOFT[i, k] * (logits.exp().sum().log() - logits[k]) / 2
        torch.testing.assert_close(loss_on(head.criterion, scores, SOFT), by_hand)


@pytest.mark.parametrize("head", ["linear", "cosface", "arcface"])
def test_certain_labels_are_labels(head: str) -> None:
    """The same loss and the same gradients, with fewer columns than classes, too."""
    model = build(ModelSpec("small_cnn", {"classes": 5, "head": head}))
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([2, 0, 1])
    parameters = list(model.parameters())
    soft = probabilities(labels)
    assert soft.shape == (3, 3)
    losses = [loss_on(criterion_of(model), model(images), y) for y in (labels, soft)]
    torch.testing.assert_close(losses[0], losses[1])
    hard_grads, soft_grads = (torch.autograd.grad(one, parameters) for one in losses)
    torch.testing.assert_close(hard_grads, soft_grads, rtol=1e-4, atol=1e-6)


def test_widths() -> None:
    assert torch.equal(probabilities(torch.tensor([1]), 3), torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.equal(probabilities(SOFT, 4), torch.cat([SOFT, torch.zeros(2, 1)], 1))
    assert torch.equal(probabilities(SOFT, 2), SOFT)
    assert most_likely(SOFT).tolist() == [0, 1]
    assert most_likely(torch.tensor([4])).tolist() == [4]
