"""One photo out of a vision transformer's gradient of which only some numbers were sent."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence.known_entries import kept_entries
from fedaudit.attacks.evidence.position_completion import photo_by_completion
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.core.training import LocalTraining
from fedaudit.models import live_module
from fedaudit.scoring.image_metrics import PSNR

sys.path.insert(0, str(Path(__file__).parent))
from small_transformer import SIZE, drawn, transformer

Gradient = dict[str, Tensor]
Prune = Callable[[Gradient], Gradient]


def gradient_of(model: nn.Module, photos: Tensor) -> Gradient:
    """Of one step."""
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(photos), torch.arange(len(photos)))
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def completed(model: nn.Module, sent: Gradient) -> Tensor | None:
    """What follows from the numbers that are not zero."""
    seen = Observation(
        model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
        before=model.state_dict(),
        shared=(Update("gradient", sent),),
        image_shape=(3, SIZE, SIZE),
        batch_size=1,
    )
    return photo_by_completion(gather_inputs(seen), kept_entries(sent))


def at_random(share: float) -> Prune:
    """Leaves out such a share of each parameter."""

    def prune(gradient: Gradient) -> Gradient:
        generator = torch.Generator().manual_seed(0)
        return {
            name: value * (torch.rand(value.shape, generator=generator) >= share)
            for name, value in gradient.items()
        }

    return prune


def the_smaller(share: float) -> Prune:
    """Leaves out the smallest numbers of each parameter, such a share."""

    def prune(gradient: Gradient) -> Gradient:
        return {
            name: value * (value.abs() >= value.abs().quantile(share))
            for name, value in gradient.items()
        }

    return prune


@pytest.mark.parametrize("prune", [at_random(0.2), the_smaller(0.5)], ids=["random", "smaller"])
def test_a_photo_follows_exactly(prune: Prune) -> None:
    model, photo = transformer(), drawn()
    found = completed(model, prune(gradient_of(model, photo)))
    assert found is not None
    assert float(PSNR()(photo, found)) > 60


def without_embedding(gradient: Gradient) -> Gradient:
    """Then photos are known up to a mixture of their patches."""
    kept = at_random(0.2)(gradient)
    return kept | {"pos_embed": torch.zeros_like(kept["pos_embed"])}


def without_a_place(gradient: Gradient) -> Gradient:
    """The numbers of W's gradient then follow from other photos, too."""
    kept = at_random(0.2)(gradient)
    embedding = kept["pos_embed"].clone()
    embedding[:, 5] = 0
    return kept | {"pos_embed": embedding}


def with_noise(gradient: Gradient) -> Gradient:
    """Of a hundredth of each parameter's numbers."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: value
        + (value != 0) * 0.01 * value.std() * torch.randn(value.shape, generator=generator)
        for name, value in at_random(0.2)(gradient).items()
    }


@pytest.mark.parametrize("prune", [at_random(0.8), without_embedding, without_a_place, with_noise])
def test_numbers_that_are_too_few_or_not_exact_give_no_photo(prune: Prune) -> None:
    model = transformer()
    assert completed(model, prune(gradient_of(model, drawn()))) is None


@pytest.mark.slow
def test_a_whole_gradient_and_two_photos_are_left_to_others() -> None:
    model = transformer()
    assert completed(model, gradient_of(model, drawn())) is None
    of_two = gradient_of(model, torch.cat([drawn(), drawn(2)]))
    assert completed(model, at_random(0.2)(of_two)) is None


def test_a_plain_user_gets_the_photo_of_a_pruned_update() -> None:
    model, photo = transformer(), drawn()
    rebuilt = fedaudit.attack(
        model,
        the_smaller(0.5)(gradient_of(model, photo)),
        "subspace_matching",
        images=1,
        image_shape=(3, SIZE, SIZE),
        defense=create("defenses", "top_k", {"pruned": 0.5}),
    )
    assert rebuilt.closed_form
    assert rebuilt.searched_by == "closed form"
    assert float(PSNR()(photo, rebuilt.images)) > 60


@pytest.mark.slow
def test_pruning_what_four_steps_changed_hides_no_photo() -> None:
    """Rounding of the weights is an error of known size beside it."""
    model, photo = transformer(), drawn()
    local = LocalTraining(lr=0.01, steps=4, batch_size=1, momentum=0.9, batch_norm="eval")
    client = copy.deepcopy(model)
    optimizer = torch.optim.SGD(client.parameters(), local.lr, local.momentum)
    for _ in range(local.steps):
        optimizer.zero_grad()
        F.cross_entropy(client(photo), torch.tensor([3])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    before = dict(model.named_parameters())
    delta = {name: (p - before[name]).detach() for name, p in client.named_parameters()}
    rebuilt = fedaudit.attack(
        model,
        at_random(0.2)(delta),
        "subspace_matching",
        kind="delta",
        training=local,
        images=1,
        image_shape=(3, SIZE, SIZE),
        defense=create("defenses", "random_pruning", {"pruned": 0.2}),
    )
    assert rebuilt.closed_form
    assert float(PSNR()(photo, rebuilt.images)) > 40
