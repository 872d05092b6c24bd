"""One photo out of a vision transformer's update of several steps of Adam."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.evidence import position_adam
from fedaudit.attacks.evidence.position_adam import adam_steps, photo_by_adam
from fedaudit.data.openpeople import openpeople
from fedaudit.scoring.image_metrics import SSIM

sys.path.insert(0, str(Path(__file__).parent))
from small_transformer import SIZE, transformer
from test_position_regression import ADAM, attacked, evidence_of, trained


def face() -> Tensor:
    return openpeople(size=SIZE).images[:1]


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(50, generator=generator) for _ in range(4)]
    weights = torch.zeros(50, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=1.0)
    for gradient in gradients:
        weights.grad = gradient
        optimizer.step()
    assert torch.allclose(adam_steps(gradients), -weights.detach(), atol=1e-4)


@pytest.mark.parametrize(("steps", "decay"), [(2, 0.0), (4, 0.0), (4, 2.0)])
def test_a_photo_comes_out_after_several_steps(steps: int, decay: float) -> None:
    """Decay beside the steps hides nothing: weights are known."""
    model, photo = transformer(), face()
    local = replace(ADAM, steps=steps, optimizer="adamw" if decay else "adam", weight_decay=decay)
    found = attacked(trained(model, local, [photo]), local, model)
    assert found.searched_by == "closed form"
    assert found.labels.tolist() == [3]
    assert float(SSIM()(photo, found.images)) > 0.6


def test_ratios_of_a_true_replay_are_the_true_ones() -> None:
    """However far later gradients are from what the first two make of them."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, 40, generator=generator)
    ratios = [torch.randn(6, 40, generator=generator) * size for size in (0.3, 0.1, 0.05)]
    true = torch.stack([first, *(first * ratio for ratio in ratios)])
    found, likely = position_adam._ratios(true, adam_steps(list(true)))
    large = first.abs() > 0.1 * first.abs().median()
    assert torch.equal(likely, first)
    assert float((found - true / first).abs().amax(0)[large].median()) < 1e-4


def test_steps_that_no_photo_explains_give_none() -> None:
    model, photo = transformer(), face()
    local = replace(ADAM, steps=2)
    delta = trained(model, local, [photo])
    evidence, seen = evidence_of(delta, local, model)
    drawn = {n: d[torch.randperm(len(d))] if d.dim() > 2 else d for n, d in delta.items()}
    assert photo_by_adam(evidence, seen.before, drawn, local) is None


def test_one_step_is_left_to_others() -> None:
    model = transformer()
    delta = trained(model, ADAM, [face()])
    evidence, seen = evidence_of(delta, ADAM, model)
    assert photo_by_adam(evidence, seen.before, delta, ADAM) is None
