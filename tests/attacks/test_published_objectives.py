"""What presets minimize under their papers' settings, beside the papers' formulas written out."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.presets.ggl import ggl
from fedaudit.attacks.presets.gias import gias
from fedaudit.attacks.presets.gifd import gifd
from fedaudit.attacks.presets.grad_inversion import grad_inversion
from fedaudit.attacks.presets.idlg import idlg
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.movers.gradient_descent import SCHEDULES
from fedaudit.core.capture import Capture
from fedaudit.core.training import LocalTraining
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import PSNR

Intercept = Callable[..., Capture]
Gradient = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
PUBLISHED: Literal["published"] = "published"

BRIEF = {
    "idlg": idlg(variant=PUBLISHED, steps=2),
    "inverting_gradients": inverting_gradients(variant=PUBLISHED, steps=4),
    "grad_inversion": grad_inversion(variant=PUBLISHED, steps=4, restarts=2),
    "gias": gias(variant=PUBLISHED, latent_steps=2, weight_steps=2, restarts=2),
    "gifd": gifd(variant=PUBLISHED, latent_steps=2, stages=(1,), stage_steps=2, restarts=2),
    "ggl": ggl(variant=PUBLISHED, generations=2, population=4),
}
"""As published, but for the time they take. DLG is iDLG at a distribution of labels of its own."""


def squares(dummy: Sequence[Any], true: Sequence[Any]) -> float:
    """Zhu et al. (2019), eq. 3; Zhao et al. (2020), eq. 2; Yin et al. (2021), eq. 2."""
    return float(sum(((a - b) ** 2).sum() for a, b in zip(dummy, true, strict=True)))


def one_minus_cosine(dummy: Sequence[Any], true: Sequence[Any]) -> float:
    """Geiping et al. (2020), eq. 4; of Jeon et al. (2021) and Fang et al. (2023) too."""
    one, other = (np.concatenate([x.ravel() for x in side]) for side in (dummy, true))
    return float(1 - one @ other / np.sqrt(one @ one * (other @ other)))


def squares_at_best_scale(dummy: Sequence[Any], true: Sequence[Any]) -> float:
    """Li et al. (2022), eq. 5, with a clipping factor that is estimated."""
    one, other = (np.concatenate([x.ravel() for x in side]) for side in (dummy, true))
    factor = max(one @ other, 0) / (one @ one)
    return float(((factor * one - other) ** 2).sum() / (other @ other))


FORMULAS = {
    "idlg": squares,
    "inverting_gradients": one_minus_cosine,
    "grad_inversion": squares,
    "gias": one_minus_cosine,
    "gifd": one_minus_cosine,
    "ggl": squares_at_best_scale,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_what_a_search_reports_is_the_papers_distance_at_its_images(
    name: str, intercept: Intercept, gradient_of: Gradient
) -> None:
    captured = intercept(network="lenet")
    seen, attack = captured.seen, BRIEF[name]
    found = attack(seen, generator=torch.Generator().manual_seed(0))
    assert seen.update is not None
    model = build(seen.model, seen.before).double()
    dummy = gradient_of(model, found.images.double(), found.labels)
    true = [seen.update.tensors[n].double().numpy() for n in dummy]
    expected = FORMULAS[name]([g.numpy() for g in dummy.values()], true)
    assert found.objective == pytest.approx(expected, rel=2e-3)


def variation(images: Any) -> float:
    """The mean absolute difference of neighbors, down and across."""
    down = np.abs(images[..., 1:, :] - images[..., :-1, :]).mean()
    return float(down + np.abs(images[..., 1:] - images[..., :-1]).mean())


@pytest.mark.parametrize(
    ("attack", "weight"),
    [
        (inverting_gradients(variant=PUBLISHED), 1e-4),
        (grad_inversion(variant=PUBLISHED), 1e-4 / 1e-3),
        (gias(variant=PUBLISHED), 1e-4),
        (gifd(variant=PUBLISHED), 1e-4),
    ],
)
def test_the_variation_counts_as_in_images_of_unit_variance(
    attack: MatchingAttack, weight: float
) -> None:
    """Published weights are of standardized images, which deviate four times as much."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    last = attack.stages[-1]
    variable = torch.zeros(1)
    standardized = (images.numpy() - 0.5) / 0.25
    assert float(last.penalty(variable, images)) == pytest.approx(
        weight * variation(standardized), rel=1e-5
    )


def test_restarts_are_drawn_to_their_mean_as_standardized_images_would_be() -> None:
    """Yin et al. (2021), eq. 11, where no restart is shifted: α ‖x − mean‖², α = 0.01 to 1e-3."""
    group = grad_inversion(variant=PUBLISHED).stages[0].group
    assert group is not None
    face = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trials = torch.stack([face, 0.9 * face + 0.05])
    standardized = (trials.numpy() - 0.5) / 0.25
    apart = ((standardized - standardized.mean(0)) ** 2).reshape(2, -1).mean(1)
    assert group(trials).numpy() == pytest.approx(0.01 / 1e-3 * apart, rel=1e-3)


def test_batch_norm_statistics_are_the_papers(intercept: Intercept) -> None:
    """Yin et al. (2021), eq. 8, by hooks of our own: over layers, of means and of variances."""
    eval_mode = LocalTraining(batch_size=2, batch_norm="eval")
    seen = intercept(network="convnet", batch=2, training=eval_mode, threat="E").seen
    assert seen.statistics is not None
    drawn = torch.Generator().manual_seed(0)
    penalty = grad_inversion(variant=PUBLISHED)._begin(seen, drawn, 0.0).penalty()
    assert penalty is not None
    images = torch.rand(2, 3, 32, 32, generator=drawn)
    model, terms = build(seen.model, seen.before).eval(), []

    def compare(name: str, inputs: tuple[Tensor, ...]) -> None:
        (own,), axes = inputs, (0, 2, 3)
        mean, spread = own.mean(axes).numpy(), own.var(axes, unbiased=False).numpy()
        assert seen.statistics is not None
        terms.append(np.linalg.norm(mean - seen.statistics[f"{name}.mean"].numpy()))
        terms.append(np.linalg.norm(spread - seen.statistics[f"{name}.var"].numpy()))

    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: compare(name, inputs))
    with torch.no_grad():
        model(images)
        assert terms
        assert float(penalty(images)) == pytest.approx(0.1 / 1e-3 * float(sum(terms)), rel=1e-4)


def test_rates_fall_as_the_authors_code_lets_them() -> None:
    """Geiping et al.: a tenth at 3/8, 5/8 and 7/8. GIFD: up over 5 %, down over the last 75 %."""
    step, ramp = SCHEDULES["step"], SCHEDULES["gifd"]
    assert [step(k, 4800) for k in (0, 1799, 1801, 2999, 3001, 4199, 4201)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]
    )
    expected = [min(1, 0.5 - 0.5 * np.cos(min(1, (1 - t) / 0.75) * np.pi)) for t in (0.3, 0.6, 0.9)]
    rates = [ramp(int(t * 1000), 1000) for t in (0.3, 0.6, 0.9)]
    assert rates == pytest.approx(expected, rel=0.02)
    assert ramp(0, 1000) < 0.05
    assert ramp(25, 1000) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_idlg_reads_the_label_off_signs_and_comes_as_near_as_its_code(intercept: Intercept) -> None:
    """Zhao et al.: every label is right; of DLG's public code 42.7, 24.9, 5.1 dB by start."""
    captured = intercept(network="lenet")
    assert captured.secret is not None
    attack, reached = idlg(variant=PUBLISHED), 0.0
    for seed in range(4):
        found = attack(captured.seen, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(found.labels, captured.secret.labels)
        reached = float(PSNR()(captured.secret.images, found.images))
        if reached > 40:
            break
    assert reached > 40
