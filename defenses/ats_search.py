"""The search for ATS policies: what an attacker gains along the way, and what learning loses.

Gao et al. (CVPR 2021, arXiv 2011.12505), by the scores of the paper and the authors' code; their
search draws 1500 policies and takes ten photos of every class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.defenses.ats import apply_policy, parse_policy
from fedaudit.defenses.augmentations import OPERATIONS, STRONGEST
from fedaudit.defenses.client_network import image_gradients

SMALL = 1e-5
"""Added to eigenvalues, as in the authors' code."""


@dataclass(frozen=True)
class ScoredPolicy:
    """A policy as `ATS.policies` takes it, and its scores.

    Attributes:
        privacy: In [-1, 1]; lower is better.
        accuracy: Higher is better; comparable between policies for the same photos only.
    """

    policy: str
    privacy: float
    accuracy: float


def search(
    trained: nn.Module,
    fresh: nn.Module,
    photos: Tensor,
    labels: Tensor,
    *,
    candidates: int,
    keep: int,
    generator: torch.Generator,
    longest: int = 3,
) -> tuple[ScoredPolicy, ...]:
    """Random search over policies: of the better half by accuracy score, the best by privacy score.

    The paper drops policies below a fixed accuracy score instead, which fits its photos alone.

    Args:
        trained: A network that has learned a little, for the privacy score (the paper trains it on
            a tenth of the data).
        fresh: One that has not, for the accuracy score.
        photos: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64.
        candidates: Policies to draw.
        keep: Policies to return, best first.
        generator: Of policies, signs and starts.
        longest: Most operations in a policy.
    """
    pool = [random_policy(longest, generator) for _ in range(candidates)]
    ranking = sorted(
        ((accuracy_score(fresh, _after(p, photos, generator)), p) for p in pool), reverse=True
    )
    scores = [
        ScoredPolicy(
            p, privacy_score(trained, _after(p, photos, generator), labels, generator), accuracy
        )
        for accuracy, p in ranking[: max(keep, (candidates + 1) // 2)]
    ]
    return tuple(sorted(scores, key=lambda policy: policy.privacy)[:keep])


def random_policy(longest: int, generator: torch.Generator) -> str:
    """One to `longest` operations of any strength."""
    length = int(torch.randint(1, longest + 1, (1,), generator=generator))
    kinds = torch.randint(len(OPERATIONS), (length,), generator=generator).tolist()
    strengths = torch.randint(STRONGEST + 1, (length,), generator=generator).tolist()
    names: Sequence[str] = tuple(OPERATIONS)
    return " ".join(f"{names[k]}:{s}" for k, s in zip(kinds, strengths, strict=True))


def privacy_score(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    points: int = 20,
) -> float:
    """How early a search from noise sees its goal: mean similarity of gradients along the way.

    The paper's S_pri: the cosine between the gradient of an image and that of its mixtures with
    uniform noise, integrated over the share of the image from 0 to 1 by trapezoids over `points`
    intervals; mean over `images [N, C, H, W]`, after the policy.
    """
    noise = torch.rand(images.shape, generator=generator).to(images)
    mode = model.training
    model.eval()
    with torch.no_grad():
        goal, _ = image_gradients(model, images, labels)
        similar = []
        for share in torch.linspace(0, 1, points + 1).tolist():
            there, _ = image_gradients(model, share * images + (1 - share) * noise, labels)
            similar.append(torch.cosine_similarity(there, goal, dim=1).mean())
    model.train(mode)
    return float(torch.trapezoid(torch.stack(similar), dx=1 / points))


def accuracy_score(model: nn.Module, images: Tensor) -> float:
    """How differently an untrained network answers to changes of different images.

    The paper's S_acc, after Mellor et al. (arXiv 2006.04647, first version): −Σ log(σ + k) +
    1/(σ + k) over the eigenvalues σ of the correlations between the images' Jacobians.
    """
    mode = model.training
    model.eval()
    leaf = images.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).sum(), leaf)
    model.train(mode)
    rows = slope.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + SMALL
    return -float((values.log() + 1 / values).sum())


def _after(policy: str, photos: Tensor, generator: torch.Generator) -> Tensor:
    steps = parse_policy(policy)
    signs = torch.randint(2, (len(steps), len(photos)), generator=generator) * 2.0 - 1
    return apply_policy(photos, steps, signs)
