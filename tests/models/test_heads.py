"""Margin heads against their formulas, computed with acos and cos."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.models.heads import (
    HEADS,
    AdaFaceHead,
    ArcFaceHead,
    CosFaceHead,
    CosineHead,
    LinearHead,
)

N, D, K = 6, 8, 5


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    embedding = 3 * torch.randn(N, D, generator=noise, dtype=torch.float64)
    return embedding, torch.tensor([0, 1, 2, 3, 4, 4])


def by_hand(head: CosineHead, embedding: Tensor, labels: Tensor, arc: bool) -> float:
    """−log of the softmax of the true class, one image at a time, with Python's math."""
    losses = []
    for x, label in zip(embedding.tolist(), labels.tolist(), strict=True):
        logits = []
        for k, w in enumerate(head.weight.tolist()):
            dot = sum(a * b for a, b in zip(x, w, strict=True))
            cosine = dot / math.hypot(*x) / math.hypot(*w)
            if k == label:
                cosine = math.cos(math.acos(cosine) + head.margin) if arc else cosine - head.margin
            logits.append(head.scale * cosine)
        losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize(("scale", "margin"), [(16.0, 0.35), (64.0, 0.1), (4.0, 0.0)])
@pytest.mark.parametrize("kind", [CosFaceHead, ArcFaceHead])
def test_loss_is_the_papers(
    kind: type[CosFaceHead | ArcFaceHead],
    scale: float,
    margin: float,
    batch: tuple[Tensor, Tensor],
) -> None:
    embedding, labels = batch
    head = kind(D, K, scale=scale, margin=margin).double()
    angles = head(embedding).gather(1, labels[:, None]).acos()
    assert kind is CosFaceHead or (angles + margin < math.pi).all()  # ArcFace is cos(θ + m) there
    loss = float(head.criterion(head(embedding), labels).detach())
    assert loss == pytest.approx(by_hand(head, embedding, labels, kind is ArcFaceHead), rel=1e-5)


@pytest.mark.parametrize("typical", [1.0, 8.0, 60.0])
def test_adaface_is_the_papers(typical: float, batch: tuple[Tensor, Tensor]) -> None:
    """Equations 12 to 14 with Python's math, for lengths above, about and below the typical one."""
    embedding, labels = batch
    head = AdaFaceHead(D, K, mean_length=typical, length_spread=typical / 4).double()
    losses, qualities = [], []
    for x, label in zip(embedding.tolist(), labels.tolist(), strict=True):
        length = math.hypot(*x)
        quality = max(-1.0, min(1.0, (length - typical) / (typical / 4) * (1 / 3)))
        logits = []
        for k, w in enumerate(head.weight.tolist()):
            cosine = sum(a * b for a, b in zip(x, w, strict=True)) / length / math.hypot(*w)
            if k == label:
                angle = math.acos(cosine) - head.margin * quality
                cosine = math.cos(angle) - (head.margin * quality + head.margin)
            logits.append(head.scale * cosine)
        losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
        qualities.append(quality)
    assert min(qualities) < max(qualities) or typical != 8.0
    loss = float(head.criterion(head(embedding), labels).detach())
    assert loss == pytest.approx(math.fsum(losses) / N, rel=1e-5)


def test_adaface_of_cosines_alone_is_cosface(batch: tuple[Tensor, Tensor]) -> None:
    """At the typical length the margin is all in the cosine; attackers may know no length."""
    embedding, labels = batch
    adaface, cosface = AdaFaceHead(D, K, margin=0.3), CosFaceHead(D, K, margin=0.3)
    cosines = cosface.double()(embedding)
    torch.testing.assert_close(
        adaface.criterion(cosines, labels), cosface.criterion(cosines, labels), rtol=1e-5, atol=0
    )


def test_without_margin_both_are_the_same(batch: tuple[Tensor, Tensor]) -> None:
    embedding, labels = batch
    cosface, arcface = CosFaceHead(D, K, margin=0.0), ArcFaceHead(D, K, margin=0.0)
    scores = cosface.double()(embedding)
    torch.testing.assert_close(
        cosface.criterion(scores, labels), arcface.criterion(scores, labels), rtol=1e-5, atol=0
    )


def test_arcface_stays_monotone_beyond_pi() -> None:
    head = ArcFaceHead(D, K, margin=0.5)
    cosine = torch.linspace(-0.9999, 0.9999, 4001, dtype=torch.float64, requires_grad=True)
    moved = head.target_cosine(cosine)
    assert (moved.diff() > 0).all()
    (slope,) = torch.autograd.grad(moved.sum(), cosine)
    assert slope.isfinite().all()
    beyond = cosine.detach() <= -math.cos(0.5)
    torch.testing.assert_close(slope[beyond], torch.ones_like(slope[beyond]))


@pytest.mark.parametrize("kind", [CosFaceHead, ArcFaceHead])
def test_lengths_do_not_matter(
    kind: type[CosFaceHead | ArcFaceHead], batch: tuple[Tensor, Tensor]
) -> None:
    embedding, _ = batch
    head = kind(D, K).double()
    scores = head(embedding)
    assert scores.abs().max() <= 1
    with torch.no_grad():
        head.weight.mul_(torch.arange(1, K + 1)[:, None])
    torch.testing.assert_close(head(embedding * 7), scores)


def test_linear_head_is_softmax_cross_entropy(batch: tuple[Tensor, Tensor]) -> None:
    embedding, labels = batch
    head = LinearHead(D, K).double()
    scores = embedding @ head.weight.T + head.bias
    expected = (scores.logsumexp(1) - scores[range(N), labels]).mean()
    torch.testing.assert_close(head.criterion(head(embedding), labels), expected)


@pytest.mark.parametrize("name", HEADS)
def test_one_step_along_the_gradient_lowers_the_loss(
    name: str, batch: tuple[Tensor, Tensor]
) -> None:
    embedding, labels = batch
    head = HEADS[name](D, K).double()
    embedding = F.normalize(embedding, dim=1).requires_grad_()
    loss = head.criterion(head(embedding), labels)
    (slope,) = torch.autograd.grad(loss, embedding)
    moved = embedding - 1e-4 * slope
    # AdaFace's quality has no derivative, so that it must stand still.
    with torch.no_grad():
        after = torch.cat([head(moved)[:, :K], head(embedding)[:, K:]], 1)
    fall = float((loss - head.criterion(after, labels)).detach())
    assert fall == pytest.approx(1e-4 * float(slope.square().sum()), rel=0.05)
