"""Tokens of a batch of photos, put in their places: photos out of a vision transformer's update."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence import token_placing
from fedaudit.attacks.evidence.patch_borders import by_borders
from fedaudit.attacks.evidence.token_placing import photos_by_tokens
from fedaudit.attacks.search.span_matching import SEEN, UNFITTED
from fedaudit.core.observation import ModelSpec
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from ported_layers import ported
from small_spans import spans_in
from transformer_batches import SIZE, drawn, farthest, grown, reading, sent, transformer


def test_a_batch_of_a_transformer_comes_out() -> None:
    model, photos = transformer(), drawn(2)
    rebuilt = fedaudit.attack(
        model, sent(model, photos), "subspace_matching", images=2, image_shape=(3, SIZE, SIZE)
    )
    assert rebuilt.iterations == 1
    assert rebuilt.closed_form  # nothing is searched, nor are colors fitted to the gradient
    assert rebuilt.gradient_evaluations <= 2
    assert rebuilt.labels.sort().values.tolist() == [0, 1]
    assert torch.allclose(rebuilt.images[rebuilt.labels.argsort()], photos, atol=0.02)


@pytest.mark.slow
def test_registers_and_scaled_layers_are_no_obstacle() -> None:
    """A DINOv2, as training leaves it: scales of 1e-5, with which it begins, have grown."""
    pytest.importorskip("timm")
    arguments = {"classes": 10, "image_size": 70}
    model = build(ModelSpec("timm:vit_small_patch14_reg4_dinov2", arguments), seed=0).eval()
    grown(model)
    photos = openpeople(size=70).images[[5, 60, 100]]
    assert farthest(photos_by_tokens(reading(model, photos, sent(model, photos))), photos) < 0.02


def place_wrongly(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Exchange two photos' tokens of one place the first so many times, and place none anew."""
    place, placed = token_placing._place, []

    def wrong(fit: Any, layers: Any, tokens: Tensor, *, told: bool) -> tuple[Tensor, Tensor]:
        slots, patches = place(fit, layers, tokens, told=told)
        placed.append(told)
        if len(placed) > times:
            return slots, patches
        with torch.no_grad():
            contexts = fit.front.run(patches)[1]
        slots = slots.clone()
        slots[:2, 4] = slots[:2, 4].flip(0)
        return slots, fit.solve(tokens, slots, contexts)

    monkeypatch.setattr(token_placing, "_place", wrong)
    monkeypatch.setattr(token_placing, "PLACINGS", 0)
    monkeypatch.setattr(token_placing, "APART", 0.0)  # no puzzle


def test_other_draws_follow_where_tokens_are_not_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, photos = transformer(), drawn(2)
    told = reading(model, photos, sent(model, photos))
    place_wrongly(monkeypatch, times=1)
    assert farthest(photos_by_tokens(told), photos) < 0.02
    monkeypatch.setattr(token_placing, "STARTS", 1)
    place_wrongly(monkeypatch, times=1)
    assert farthest(photos_by_tokens(told), photos) > 0.1


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_that_is_nearly_right_is_no_reason_to_search(count: int) -> None:
    """A single photo that is no nearer is searched; a batch's search would end in noise."""
    model, photos = transformer(), drawn(count)
    spans = spans_in(model, sent(model, photos), photos)
    near = photos.clone()
    patch = photos[0, :, :8, :8]
    near[0, :, :8, :8] = 0.7 * patch + 0.3 * patch.flip(1)
    assert SEEN < spans.distance(near) < UNFITTED
    assert spans.bears_out(near) == (count > 1)
    assert spans.bears_out(photos)
    assert not spans.bears_out(photos.flip(2))


def test_photos_on_the_same_white_ground_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of the same patch and place are alike but for the little that attention adds."""
    monkeypatch.setattr(token_placing, "APART", 0.0)  # a puzzle of such photos has no one answer
    # The first two come to 0.005 on one processor and to 0.5, in that patch, on another.
    model, photos = transformer(), drawn(3)[1:]
    photos[:, :, :8, :8] = 1.0
    first = model.get_submodule("encoder.layers.encoder_layer_0.self_attention")
    first.get_parameter("out_proj.weight").data *= 0.1
    found = photos_by_tokens(reading(model, photos, sent(model, photos)))
    assert found is not None
    apart = (found.images[:, None] - photos).abs().amax((2, 3, 4))
    assert apart.min(1).values.max() < 0.02
    assert sorted(apart.argmin(1).tolist()) == [0, 1]


def test_no_gradient_of_the_places_is_needed() -> None:
    model, photo = transformer(), drawn(1)
    update = sent(model, photo)
    del update["encoder.pos_embedding"]
    found = photos_by_tokens(reading(model, photo, update))
    assert found is not None
    assert torch.allclose(found.images, photo, atol=0.02)


def test_patches_of_faces_find_their_photo_by_their_borders() -> None:
    """Four people's photos, a third of whose patches were dealt out anew."""
    faces, generator = orl(size=64).images[[0, 10, 20, 30]], torch.Generator().manual_seed(0)
    dealt, places = faces.clone(), [(r, c) for r in range(0, 64, 16) for c in range(0, 64, 16)]
    for r, c in places[::3]:
        order = torch.randperm(4, generator=generator)
        dealt[:, :, r : r + 16, c : c + 16] = faces[order, :, r : r + 16, c : c + 16]
    owner = by_borders(dealt, (16, 16))
    found = dealt.clone()
    for p, (r, c) in enumerate(places):
        found[:, :, r : r + 16, c : c + 16] = dealt[owner[:, p], :, r : r + 16, c : c + 16]
    assert (dealt - faces).abs().amax((1, 2, 3)).min() > 0.3
    assert torch.equal(found, faces)


@pytest.mark.parametrize("count", [1, 2])
def test_where_no_place_is_known_borders_tell_it(count: int) -> None:
    """Without an embedding of places a transformer takes patches in any order."""
    model, photos = transformer(), drawn(count)
    nn.init.zeros_(model.get_parameter("encoder.pos_embedding"))
    nn.init.normal_(model.get_parameter("class_token"))
    mixed = photos.unfold(2, 8, 8).unfold(3, 8, 8).flip(2).flatten(4).permute(0, 1, 4, 2, 3)
    mixed = F.fold(mixed.flatten(1, 2).flatten(2), (SIZE, SIZE), 8, stride=8)
    assert torch.allclose(model(mixed), model(photos), atol=1e-5)
    assert farthest(photos_by_tokens(reading(model, photos, sent(model, photos))), photos) < 0.02


def test_patches_that_are_no_numbers_are_no_puzzle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos come back that no equation bears out, and nothing is raised."""
    model, photos = transformer(), drawn(1)
    nn.init.zeros_(model.get_parameter("encoder.pos_embedding"))
    place = token_placing._place

    def lost(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        slots, patches = place(*args, **named)
        return slots, torch.full_like(patches, torch.nan)

    monkeypatch.setattr(token_placing, "_place", lost)
    monkeypatch.setattr(token_placing, "ALIKE", torch.inf)
    found = photos_by_tokens(reading(model, photos, sent(model, photos)))
    assert found is not None
    assert found.images.shape == photos.shape


@pytest.mark.slow
def test_photos_through_rotations_and_relative_places_come_out() -> None:
    """As BEiT and DINOv3 know places, by attention alone."""
    pytest.importorskip("timm")
    photos = openpeople(size=64).images[[1, 20, 30]]
    for name in ("beit_base_patch16_224", "vit_small_patch16_dinov3"):
        arguments = {"classes": 10, "image_size": 64}
        model = build(ModelSpec(f"timm:{name}", arguments), seed=0).eval()
        grown(model)
        told = reading(model, photos, sent(model, photos))
        assert farthest(photos_by_tokens(told), photos) < 0.1


def test_tokens_that_go_to_a_wrong_photo_are_placed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the gradients that arrive nor attention tell photos apart at first."""

    def deal(_features: Tensor, members: list[Tensor], count: int) -> Tensor:
        photo = torch.zeros(sum(map(len, members)), dtype=torch.int64)
        for number, rows in enumerate(members):
            photo[rows] = (torch.arange(len(rows)) + number) % count
        return photo

    model, photos = transformer(), drawn(2)
    update = sent(model, photos)
    monkeypatch.setattr(token_placing, "cluster", deal)
    monkeypatch.setattr(token_placing, "ROUNDS", 1)
    apart = {}
    for times in (0, token_placing.PLACINGS):
        monkeypatch.setattr(token_placing, "PLACINGS", times)
        apart[times] = farthest(photos_by_tokens(reading(model, photos, update)), photos)
    assert apart[0] > 0.1
    assert apart[token_placing.PLACINGS] < 0.02


def test_a_batch_of_a_transformer_that_multiplies_by_itself_comes_out() -> None:
    model, photos = ported(transformer()), drawn(2)
    found = photos_by_tokens(reading(model, photos, sent(model, photos)), seed=0)
    assert farthest(found, photos) < 1e-2
