"""A batch of photos out of a vision transformer's update, in closed form."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence import token_placing, token_separation
from fedaudit.attacks.evidence.feed_forward import FeedForward, first_feed_forward
from fedaudit.attacks.evidence.patch_borders import by_borders
from fedaudit.attacks.evidence.token_criteria import Upstream
from fedaudit.attacks.evidence.token_placing import PlacedTokens, photos_by_tokens
from fedaudit.attacks.evidence.token_separation import separate_tokens
from fedaudit.attacks.search.span_matching import SEEN, UNFITTED
from fedaudit.core.observation import ModelSpec
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.scoring.pairing import pair

sys.path.insert(0, str(Path(__file__).parent))
from ported_layers import ported
from small_spans import spans_in

SIZE = 24


def transformer() -> nn.Module:
    """torchvision's, small, 10 tokens an image, with a head that sends something back."""
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.VisionTransformer(SIZE, 8, 2, 4, 64, 256, num_classes=7)
    nn.init.normal_(network.get_parameter("heads.head.weight"), std=0.1)
    return network.eval()


def drawn(count: int) -> Tensor:
    """Smooth images, each of other colors."""
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (SIZE, SIZE), mode="bicubic", align_corners=True).clamp(0, 1)


def sent(model: nn.Module, photos: Tensor) -> dict[str, Tensor]:
    """A client's gradient."""
    loss = F.cross_entropy(model(photos), torch.arange(len(photos)))
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def reading(model: nn.Module, photos: Tensor, update: dict[str, Tensor]) -> Any:
    """What the closed form is given of the update."""
    return SimpleNamespace(
        count=len(photos),
        private=frozenset(),
        model=model,
        target=update,
        shape=tuple(photos.shape[1:]),
        like=photos,
    )


def tokens_of(model: nn.Module, layers: FeedForward, photos: Tensor) -> Tensor:
    """What enters the feed-forward part, `[N·T, D]`."""
    entered: list[Tensor] = []
    layers.inner.register_forward_pre_hook(lambda _, args: entered.append(args[0].detach()))
    model(photos)
    return entered[0].flatten(0, 1).double()


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


@pytest.mark.slow
def test_registers_and_scaled_layers_are_no_obstacle() -> None:
    """A DINOv2, as training leaves it: scales of 1e-5, with which it begins, have grown."""
    pytest.importorskip("timm")
    arguments = {"classes": 10, "image_size": 70}
    model = build(ModelSpec("timm:vit_small_patch14_reg4_dinov2", arguments), seed=0).eval()
    grown(model)
    photos = openpeople(size=70).images[[5, 60, 100]]
    assert farthest(photos_by_tokens(reading(model, photos, sent(model, photos))), photos) < 0.02


def grown(model: nn.Module) -> None:
    """Draw what begins next to nothing as large as training may make it."""
    torch.manual_seed(0)
    with torch.no_grad():
        nn.init.normal_(model.get_parameter("head.weight"), std=0.02)
        for name, p in model.named_parameters():
            if name.endswith((".gamma", ".gamma_1", ".gamma_2")):
                p.uniform_(0.05, 0.5)
            elif name in ("cls_token", "reg_token"):
                p.normal_(std=0.5)


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


def farthest(found: PlacedTokens | None, photos: Tensor) -> float:
    """The largest difference of a pixel, of the photo that is farthest from all that were found."""
    assert found is not None
    return float((found.images[:, None] - photos).abs().amax((2, 3, 4)).min(1).values.max())


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
    model, photos = transformer(), drawn(2)
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
