"""Tokens of a batch of photos, each by itself, out of a vision transformer's update."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence import token_separation
from fedaudit.attacks.evidence.feed_forward import first_feed_forward
from fedaudit.attacks.evidence.token_criteria import Upstream
from fedaudit.attacks.evidence.token_placing import photos_by_tokens
from fedaudit.attacks.evidence.token_separation import separate_tokens
from fedaudit.core.observation import ModelSpec
from fedaudit.data.openpeople import openpeople
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.scoring.pairing import pair

sys.path.insert(0, str(Path(__file__).parent))
from transformer_batches import drawn, reading, sent, tokens_of, transformer


def test_every_token_is_found_by_itself() -> None:
    model, photos = transformer(), drawn(3)
    layers = first_feed_forward(reading(model, photos, sent(model, photos)))
    assert layers is not None
    truth = tokens_of(model, layers, photos)
    tokens = separate_tokens(layers, 3)
    assert tokens is not None
    nearest = torch.cdist(tokens, truth).min(1)
    assert sorted(nearest.indices.tolist()) == list(range(30))
    assert float(nearest.values.max()) < 0.01 * float(truth.norm(dim=1).mean())


def before_a_plain_wall() -> tuple[Upstream, Tensor]:
    """The search for the tokens of three photos, many of them nearly alike; these, `[30, D]`."""
    model, photos = transformer(), drawn(3)
    photos[:, :, :, :16] = 0.5 + 0.2 * (photos[:, :, :, :16] - 0.5)  # plain but for a third
    layers = first_feed_forward(reading(model, photos, sent(model, photos)))
    assert layers is not None
    truth = tokens_of(model, layers, photos)
    whole = token_separation._whole_problem(layers, len(truth))
    assert whole is not None
    return whole, truth


def test_a_mixture_of_tokens_that_are_nearly_alike_is_told_and_mended() -> None:
    """What the span of the second gradient hides of it, upstream gradients show."""
    whole, truth = before_a_plain_wall()
    basis = whole.tokens.basis
    tokens = torch.linalg.lstsq(basis.T, truth.T).solution.T
    apart = torch.cdist(truth, truth) + 1e3 * torch.eye(len(truth))
    one, other = divmod(int(apart.argmin()), len(truth))
    assert float(apart.min()) < 0.1 * float(truth.norm(dim=1).mean())
    mixture = 0.7 * tokens[one] + 0.3 * tokens[other]
    assert float(whole.tokens.outside(mixture[None])[1]) < token_separation.FOUND
    assert whole.miss(mixture) > 100 * whole.miss(tokens[one])
    mended = whole.refined(mixture)
    before, after = ((c @ basis - truth[one]).norm() for c in (mixture, mended))
    assert float(after) < 0.2 * float(before)
    assert whole.miss(mended) < 0.01 * whole.miss(mixture)


def test_a_token_that_stands_for_several_is_taken_as_often() -> None:
    """Three that are nearly alike came out as their mean: the two missing are copies of it."""
    whole, truth = before_a_plain_wall()
    tokens = torch.linalg.lstsq(whole.tokens.basis.T, truth.T).solution.T
    apart = torch.cdist(truth, truth).sort()
    group = apart.indices[int(apart.values[:, 2].argmin()), :3].tolist()
    mean = whole.tokens.as_long(tokens[group].mean(0, keepdim=True))
    others = [one for one in range(len(truth)) if one not in group]
    found = torch.cat([tokens[others], mean])
    functionals = torch.stack([whole(one) for one in found])
    twins = token_separation._twins(whole.tokens, found, functionals, 2)
    assert torch.equal(twins, mean.expand(2, -1))


def test_registers_that_are_hidden_are_taken_again() -> None:
    """Of three photos, two registers of one kind came out as one, and all of the other kind."""
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(2, 40, generator=generator)
    patches = torch.randn(9, 40, generator=generator)
    near = expected[[0, 0, 1, 1, 1]] + 0.01 * torch.randn(5, 40, generator=generator)
    tokens = torch.cat([patches, near])
    again, spare = token_separation._alike(tokens, expected, 3)
    assert len(again) == 1
    assert again[0] in (9, 10)
    assert not spare.any()
    whole = torch.cat([tokens, near[:1]])
    again, spare = token_separation._alike(whole, expected, 3)
    assert len(again) == 0
    assert not spare.any()
    again, spare = token_separation._alike(torch.cat([whole, near[2:4]]), expected, 3)
    assert len(again) == 0
    assert torch.nonzero(spare).flatten().tolist() == [15, 16]  # found last


def test_of_rounds_that_lose_tokens_the_fullest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What refines mixtures may drop more tokens than are found anew."""
    model, photos = transformer(), drawn(3)
    layers = first_feed_forward(reading(model, photos, sent(model, photos)))
    assert layers is not None
    rounds: list[int] = []
    taken = token_separation._new_ones

    def lose(*given: Any) -> Any:
        rounds.append(1)
        room = 29 if len(rounds) < 10 else 10
        found, functionals = taken(*given)
        return found[:room], functionals[:room]

    monkeypatch.setattr(token_separation, "_new_ones", lose)
    tokens = separate_tokens(layers, 3)
    assert tokens is not None
    assert len(tokens) == 30


@pytest.mark.slow
def test_faces_before_a_plain_wall_come_out() -> None:
    """Fourteen patches of gray have a mean that nearly is a token, and stood for all of them."""
    pytest.importorskip("timm")
    model = build(
        ModelSpec("timm:vit_small_patch16_224", {"classes": 10, "image_size": 112}), seed=1
    )
    nn.init.normal_(model.get_parameter("head.weight"), std=0.02)
    photos = openpeople(size=112).images[[114, 119, 98, 128]]
    rebuilt = fedaudit.attack(
        model.eval(),
        sent(model, photos),
        "subspace_matching",
        images=4,
        image_shape=(3, 112, 112),
        seed=2,
    )
    assert rebuilt.searched_by == "closed form"
    unknown = torch.full((4,), -1)
    found = rebuilt.images[list(pair(photos, unknown, rebuilt.images, unknown))]
    assert float(SSIM()(photos, found).mean()) > 0.95


def test_nothing_is_said_of_noise_and_of_too_many_photos() -> None:
    model, photos = transformer(), drawn(7)
    few, update = photos[:3], sent(model, photos[:3])
    generator = torch.Generator().manual_seed(0)
    noisy = {
        name: value + value.std() * torch.randn(value.shape, generator=generator)
        for name, value in update.items()
        if value.dim() > 1
    }
    assert photos_by_tokens(reading(model, few, noisy)) is None
    assert photos_by_tokens(reading(model, photos, sent(model, photos))) is None


def test_a_layer_inside_another_module_is_one_layer() -> None:
    model, photos = transformer(), drawn(2)
    usual = first_feed_forward(reading(model, photos, sent(model, photos)))
    for name in [name for name, m in model.named_modules() if type(m) is nn.Linear]:
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, nn.Sequential(model.get_submodule(name)))
    found = first_feed_forward(reading(model, photos, sent(model, photos)))
    assert usual is not None
    assert found is not None
    assert torch.equal(found.inner.weight, usual.inner.weight)
