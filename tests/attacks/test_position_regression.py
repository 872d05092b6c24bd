"""One photo out of a vision transformer's update that is no exact gradient."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence import patch_system, position_embedding
from fedaudit.attacks.evidence.known_entries import KnownEntries, rounded_entries
from fedaudit.attacks.evidence.photo_statistics import PhotoStatistics
from fedaudit.attacks.evidence.position_embedding import (
    parameters_of_places,
    patch_layers,
    photo_by_position,
)
from fedaudit.attacks.evidence.position_regression import photo_by_regression
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.search.closed_form import solve_photos
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.core.training import LocalTraining
from fedaudit.models import live_module
from fedaudit.scoring.image_metrics import PSNR

sys.path.insert(0, str(Path(__file__).parent))
from small_transformer import SIZE, drawn, transformer

FOUR_STEPS = LocalTraining(
    lr=0.01, steps=4, batch_size=1, momentum=0.9, weight_decay=5e-4, batch_norm="eval"
)
ADAM = LocalTraining(lr=1e-3, batch_size=1, optimizer="adam", batch_norm="eval")


def trained(model: nn.Module, local: LocalTraining, photos: list[Tensor]) -> dict[str, Tensor]:
    """What changed after a step on each of the photos in turn."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer: torch.optim.Optimizer
    if local.by_adam:
        rule = torch.optim.AdamW if local.optimizer == "adamw" else torch.optim.Adam
        optimizer = rule(model.parameters(), local.lr, weight_decay=local.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), local.lr, local.momentum, weight_decay=local.weight_decay
        )
    for step in range(local.steps):
        optimizer.zero_grad()
        F.cross_entropy(model(photos[step % len(photos)]), torch.tensor([3])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    delta = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    model.load_state_dict(before, strict=False)
    return delta


def evidence_of(
    delta: dict[str, Tensor], local: LocalTraining, model: nn.Module
) -> tuple[Evidence, Observation]:
    seen = Observation(
        model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
        before=model.state_dict(),
        shared=(Update("delta", delta),),
        image_shape=(3, SIZE, SIZE),
        batch_size=1,
        training=local,
    )
    return gather_inputs(seen), seen


def attacked(delta: dict[str, Tensor], local: LocalTraining, model: nn.Module) -> Reconstruction:
    return fedaudit.attack(
        model,
        delta,
        "subspace_matching",
        kind="delta",
        training=local,
        images=1,
        image_shape=(3, SIZE, SIZE),
    )


def decibels(photo: Tensor, found: Tensor) -> float:
    return float(PSNR()(photo, found).mean())


def test_many_local_steps_hide_nothing_of_one_photo() -> None:
    """Though later layers' inputs drift: true ones are far from what is spanned by then."""
    model, photo = transformer(), drawn()
    delta = trained(model, FOUR_STEPS, [photo])
    found = attacked(delta, FOUR_STEPS, model)
    assert found.closed_form
    assert found.searched_by == "closed form"
    assert found.objective > 1e-2  # the mean squared sine of the drifted layers
    assert decibels(photo, found.images) > 50


def test_photos_that_change_from_step_to_step_are_not_taken_for_one() -> None:
    model = transformer()
    evidence, _ = evidence_of(trained(model, FOUR_STEPS, [drawn(1), drawn(2)]), FOUR_STEPS, model)
    assert photo_by_position(evidence) is None
    entries = rounded_entries(evidence.target, evidence.target, None, 1)
    assert photo_by_regression(evidence, entries) is None


@pytest.mark.parametrize("local", [ADAM, replace(ADAM, optimizer="adamw", weight_decay=0.05)])
def test_a_step_of_adam_gives_the_photo(local: LocalTraining) -> None:
    """Of gradients as small as a large transformer's: this one's head is small for that."""
    model, photo = transformer(head=2e-4), drawn()
    delta = trained(model, local, [photo])
    evidence, _ = evidence_of(delta, local, model)
    assert evidence.signs
    assert photo_by_position(evidence) is None  # steps are no gradient
    found = attacked(delta, local, model)
    assert not found.closed_form  # the likeliest photo, not the only one
    assert decibels(photo, found.images) > 25


def test_rounding_of_small_steps_is_known_and_met() -> None:
    model, photo = transformer(), drawn()
    local = replace(FOUR_STEPS, lr=1e-5, weight_decay=0.0)
    delta = trained(model, local, [photo])
    evidence, seen = evidence_of(delta, local, model)
    exact = trained(model.double(), local, [photo.double()])
    model.float()
    entries = rounded_entries(evidence.target, delta, seen.before, local.steps)
    for name in ("patch_embed.proj.weight", "pos_embed"):
        factor = evidence.target[name].double().norm() / delta[name].double().norm()
        standard = factor * (delta[name].double() - exact[name]) / entries[name].errors
        assert 0.5 < float(standard.square().median().sqrt()) / 0.6745 < 2, name
    photo_found = photo_by_regression(evidence, entries)
    assert photo_found is not None
    assert decibels(photo, photo_found) > 20
    # Errors that are stated a hundred times too small are not what rounding leaves.
    wrong = {n: KnownEntries(e.numbers, e.errors * 1e-2) for n, e in entries.items()}
    assert photo_by_regression(evidence, wrong) is None


def test_what_is_mostly_noise_is_no_photo() -> None:
    model, photo = transformer(), drawn()
    local = replace(FOUR_STEPS, weight_decay=0.0)
    evidence, _ = evidence_of(trained(model, local, [photo]), local, model)
    generator = torch.Generator().manual_seed(0)
    noised, entries = {}, {}
    for name, value in evidence.target.items():
        noise = 3 * value.square().mean().sqrt() * torch.randn(value.shape, generator=generator)
        noised[name] = value + noise
        deviation = torch.full_like(noise, float(noise.square().mean().sqrt()))
        entries[name] = KnownEntries(noised[name].double(), deviation.double())
    assert photo_by_regression(replace(evidence, target=noised), entries) is None


def test_an_embedding_of_another_scale_gives_no_photo_at_another_contrast() -> None:
    """As each parameter that is clipped by itself has."""
    model = transformer()
    delta = trained(model, FOUR_STEPS, [drawn()])
    delta["pos_embed"] /= 2
    evidence, seen = evidence_of(delta, FOUR_STEPS, model)
    assert photo_by_position(evidence) is None
    entries = rounded_entries(evidence.target, delta, seen.before, FOUR_STEPS.steps)
    assert photo_by_regression(evidence, entries) is None


def test_networks_without_places_pay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their 1×1 convolutions cut images, too: into as many patches as pixels."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was run for nothing")

    for module in (position_embedding, patch_system):
        monkeypatch.setattr(module, "channel_scale", refuse)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    ).eval()
    local = replace(FOUR_STEPS, weight_decay=0.0)
    evidence, seen = evidence_of(trained(model, local, [drawn()]), local, model)
    assert [name for name, _ in patch_layers(evidence)] == ["0.weight"]
    assert parameters_of_places(evidence) == set()
    assert solve_photos(evidence, seen, None, seed=0) is None


@pytest.mark.parametrize("wrong", ["patches frozen", "not finite", "huge"])
def test_numbers_that_are_no_gradient_give_no_photo(wrong: str) -> None:
    model, photo = transformer(), drawn()
    local = replace(FOUR_STEPS, weight_decay=0.0)
    evidence, _ = evidence_of(trained(model, local, [photo]), local, model)
    target = {name: value.clone() for name, value in evidence.target.items()}
    patches = target["patch_embed.proj.weight"]
    if wrong == "patches frozen":
        patches.zero_()
    elif wrong == "not finite":
        patches[0, 0, 0, 0] = torch.nan
    else:
        patches.copy_(torch.randn(patches.shape, generator=torch.Generator().manual_seed(0)))
        patches *= 1e30
    bad = replace(evidence, target=target)
    assert photo_by_position(bad) is None
    assert photo_by_regression(bad, rounded_entries(target, target, None, 1)) is None


def test_what_is_unlikely_of_a_photo_is_what_its_waves_say() -> None:
    prior = PhotoStatistics(torch.zeros(1, 3, 8, 12, dtype=torch.float64))
    identity = torch.eye(3 * 8 * 12, dtype=torch.float64).view(-1, 1, 3, 8, 12)
    inverse = torch.stack([prior.unlikeliness(one).flatten() for one in identity])
    assert torch.allclose(inverse, inverse.mT)
    covariance = torch.linalg.inv(inverse)
    assert float(covariance.diagonal().mean()) == pytest.approx(prior.pixel_variance)
    neighbors = covariance.view(3, 8, 12, 3, 8, 12)[0, 3, 4, 0, 3]
    assert neighbors[4] > neighbors[5] > neighbors[8]
