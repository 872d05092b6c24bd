"""Golden values: what each published attack is known to do, and where it is known to break.

One lenet, one face; every threshold is far from what a broken attack reaches.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.presets.dlg import dlg
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.core.capture import Capture
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.scoring.image_metrics import PSNR

Intercept = Callable[..., Capture]
Transform = Callable[[Tensor], Tensor]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def psnr(found: Tensor, captured: Capture) -> float:
    assert captured.secret is not None
    return float(PSNR()(captured.secret.images, found).min())


def changed(
    seen: Observation, change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> Observation:
    """The observation of a client that changes its gradient before it sends it."""
    assert seen.update is not None
    return replace(seen, shared=(Update("gradient", change(seen.update.tensors)),))


def clipped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    norm = torch.stack([t.square().sum() for t in tensors.values()]).sum().sqrt()
    return {name: 0.01 * t / norm for name, t in tensors.items()}


def pruned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only the largest 1 % of all entries are sent."""
    every = torch.cat([t.abs().flatten() for t in tensors.values()])
    least = every.sort(descending=True).values[len(every) // 100]
    return {name: t * (t.abs() >= least) for name, t in tensors.items()}


def signs(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.sign() for name, t in tensors.items()}


@pytest.mark.slow  # the contract runs the attack, and the next test reaches 25 dB
def test_dlg_is_exact_on_lenet_with_five_restarts(intercept: Intercept) -> None:
    captured = intercept(network="lenet")
    found = dlg(steps=35, restarts=5)(captured.seen, generator=noise())
    assert psnr(found.images, captured) > 35
    assert captured.secret is not None
    assert found.labels.tolist() == captured.secret.labels.tolist()


@pytest.mark.slow  # two whole searches
def test_clipping_changes_nothing_for_a_cosine_and_everything_for_l2(intercept: Intercept) -> None:
    """Unless L2 adapts: it estimates the factor."""
    captured = intercept(network="lenet")
    seen = changed(captured.seen, clipped)

    def reached(distance: str, observed: Observation) -> float:
        attack = inverting_gradients(steps=10, polish=25, distance=distance)  # type: ignore[arg-type]
        return psnr(attack(observed, generator=noise()).images, captured)

    cosine = reached("cosine", seen)
    assert cosine == pytest.approx(reached("cosine", captured.seen), abs=3)
    assert cosine > 25
    assert reached("l2", captured.seen) > 25
    assert reached("l2", seen) < 15
    assert reached("scaled_l2", seen) > 25


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (pruned, DefenseFacts("top_k", {"pruned": 0.99})),
        (signs, DefenseFacts("sign", {})),
    ],
    ids=["pruning 0.99", "sign"],
)
@pytest.mark.slow  # a long search
def test_compression_breaks_matching_and_not_learned_inversion(
    change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    facts: DefenseFacts,
    intercept: Intercept,
) -> None:
    """It learns through the defense; a real one has thousands of faces, this one 300."""
    captured = intercept(network="lenet")
    learned = create("attacks", "learned_inversion", {"faces": 300, "epochs": 6, "cache": "off"})
    # The usual weight, which is larger, smooths what it cannot match: 12 dB of what was pruned.
    attack = inverting_gradients(steps=60, polish=25, total_variation=0.05)
    seen = changed(captured.seen, change)
    broken = psnr(attack(seen, generator=noise()).images, captured)
    told = replace(seen, defense=(facts,))
    inverted = psnr(learned(told, generator=noise()).images, captured)
    assert broken < 10  # of the plain gradient it reaches more than 25, as above
    assert inverted > broken + 4
