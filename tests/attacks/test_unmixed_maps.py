"""The map of each single image, out of what a batch's maps span, and in one order over layers."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence.common_maps import common_maps, with_whole_maps
from fedaudit.attacks.evidence.unmixed_maps import in_one_order, unmix
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.scene import StageResult
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import seen_in, sent, spans_in
from test_common_maps import drawn, spans_of


def mixed(maps: Tensor) -> Tensor:
    """An orthonormal basis of what the maps span, that shows none of them."""
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(len(maps), len(maps), generator=generator).double()
    basis: Tensor = torch.linalg.qr((mixture @ maps).T).Q.T
    return basis


def signed(count: int) -> Tensor:
    return torch.randn(count, 600, generator=torch.Generator().manual_seed(0)).double()


def network() -> nn.Module:
    """Two convolutions whose inputs are known as a whole in a batch of three, and a shortcut."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(2))
            self.norms = nn.ModuleList(nn.BatchNorm2d(64) for _ in range(2))

        def forward(self, maps: Tensor) -> Tensor:
            inner = F.relu(self.norms[0](self.one(maps)))
            return F.relu(maps + self.norms[1](self.two(inner)))

    return nn.Sequential(
        *(nn.Conv2d(3, 64, 5, stride=4, padding=2, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)),
    ).train()


@pytest.mark.parametrize("count", [1, 2, 8])
def test_what_relus_let_through_comes_apart(count: int) -> None:
    true = F.normalize(signed(count).relu(), dim=1)
    own = unmix(mixed(true))
    assert own is not None
    assert float((own @ true.T).max(1).values.min()) > 1 - 1e-8
    assert sorted((own @ true.T).argmax(1).tolist()) == list(range(count))


def test_maps_without_zeros_or_with_signs_stay_mixed() -> None:
    assert unmix(mixed(signed(4))) is None
    assert unmix(mixed(F.softplus(signed(4)))) is None


def test_the_maps_of_each_photo_in_one_order_over_layers() -> None:
    model, images = network(), drawn(3)
    reader, spans = spans_of(model, images)
    with torch.no_grad():
        entered = reader.inputs(["3.one.weight", "3.two.weight"], images)
    maps, true = {}, {}
    for span in spans:
        basis = common_maps(reader, span) if span.name in entered else None
        own = None if basis is None else unmix(basis)
        if own is not None:
            maps[span.name] = own
            true[span.name] = F.normalize(entered[span.name][0][1].flatten(1).double(), dim=1)
    assert set(maps) == set(entered)
    maps["3.two.weight"] = maps["3.two.weight"].roll(1, 0)
    ordered = in_one_order(reader, maps)
    assert set(ordered) == set(entered)
    orders = [(rows @ true[name].T).argmax(1).tolist() for name, rows in ordered.items()]
    assert orders[0] == orders[1]
    for name, rows in ordered.items():
        assert float((rows @ true[name].T).max(1).values.min()) > 1 - 1e-6


def test_own_maps_lead_only_with_a_number_a_pixel() -> None:
    """Fewer leave photos open, and what their patches span says more."""
    reader, spans = spans_of(network(), drawn(3))
    numbers = 2 * 64 * 4 * 4  # of both layers' maps
    alone = [s.name for s in with_whole_maps(reader, spans, pixels=numbers) if s.alone]
    assert alone == ["3.one.weight", "3.two.weight"]
    assert with_whole_maps(reader, spans, pixels=numbers + 1) == spans


def test_a_search_begins_with_what_each_photo_has_by_itself() -> None:
    model, images = network(), drawn(3)
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(
        F.cross_entropy(model(images), torch.arange(3)), list(named.values())
    )
    update = dict(zip(named, slopes, strict=True))
    whole = spans_in(model, update, images).whole
    assert whole is not None
    assert {span.name for span in whole.spans if span.alone} == {"3.one.weight"}
    distances = [whole.distance(images.roll(shift, 0)) for shift in range(3)]
    assert min(distances) < 1e-5  # in one order, which nobody knows
    assert sorted(distances)[1] > 1e-3
    rebuilt = fedaudit.attack(
        model,
        update,
        "subspace_matching",
        images=3,
        image_shape=(3, 16, 16),
        settings={"steps": 4, "mends": 0},
    )
    assert rebuilt.iterations == 3 * (4 + 6) + 4 + 6 + 4 + 6  # three go on as their mean
    assert torch.isfinite(rebuilt.images).all()


def test_images_that_labels_sort_start_a_stage_as_their_known_maps_are_sorted() -> None:
    """The default attack knows labels, and sorts by them after each stage; maps have no label."""
    model, images = network(), drawn(3)
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(
        F.cross_entropy(model(images), torch.arange(3)), list(named.values())
    )
    seen = seen_in(model, dict(zip(named, slopes, strict=True)), images)
    run = gan_inversion()._begin(seen, torch.Generator().manual_seed(0), 0.0)
    run.scene.spans = SpanMatching(run.scene.evidence)
    whole = run.scene.spans.whole
    assert whole is not None
    stage = Stage(varies=Pixels(start="previous"), steps=0, lr=0.1, match="whole")
    for shift in range(3):
        before = StageResult(images.roll(shift, 0)[None])
        ended = run._stage(0, stage, before, None, {})
        own = torch.cat([variable.detach() for variable in ended.variables])
        assert whole.distance(own) < 1e-5
        torch.testing.assert_close(run.images[0], images)  # by their labels


def test_the_mean_of_several_searches_is_of_the_same_photo_each() -> None:
    """Labels sort each search by itself, and those of a search that is on its way are guesses."""
    model, images = network(), drawn(3)
    seen = seen_in(model, sent(model, images), images)
    run = subspace_matching()._begin(seen, torch.Generator().manual_seed(0), 0.0)
    assert run.scene.restarts == 3
    noise = 0.01 * torch.randn(3, *images.shape, generator=torch.Generator().manual_seed(2))
    run.images = torch.stack([(images + noise[k]).roll(k, 0) for k in range(3)]).clamp(0, 1)
    mean = run._average().images
    assert run.scene.restarts == len(mean) == 1
    shared = (images + noise).clamp(0, 1).mean(0)
    assert min(float((mean[0] - shared.roll(k, 0)).abs().max()) for k in range(3)) < 1e-6
