"""Pruned gradients: what the kept entries of each row still say of layers' inputs."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence import pruned_spans
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_unfolding import matrices_of, rows_of
from fedaudit.attacks.evidence.pruned_spans import PrunedSpan, find_pruned_spans
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.schedules.span_stages import span_stages
from fedaudit.attacks.search.schedules.suited import suited
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import DefenseFacts
from fedaudit.data.face_set import FaceSet
from fedaudit.scoring.image_metrics import SSIM

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import seen_in, sent

PRUNED = 0.9


def network(*, groups: int = 1) -> nn.Sequential:
    """More rows than positions, smooth, in double precision."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.SiLU(),
        nn.Conv2d(16, 48, 3, 2, 1, groups=groups),
        nn.SiLU(),
        nn.Conv2d(48, 96, 3, 2, 1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(96 * 4, 5),
    ).double()


@pytest.fixture(scope="module")
def photos(faces: FaceSet) -> Tensor:
    """Two people's, of 16 × 16 pixels."""
    small = nn.functional.interpolate(faces.images[[0, 100]], size=(16, 16), mode="area")
    return small.double() * torch.tensor([0.9, 0.7, 0.5])[:, None, None]


def pruned(update: dict[str, Tensor], share: float = PRUNED) -> dict[str, Tensor]:
    """By chance."""
    drawn = torch.Generator().manual_seed(1)
    return {n: v * (torch.rand(v.shape, generator=drawn) >= share) for n, v in update.items()}


def distances(span: PrunedSpan, reader: InputReader, photos: Tensor) -> list[float]:
    with torch.no_grad():
        uses = [reader.inputs([span.name], one)[span.name] for one in photos.split(1)]  # type: ignore[no-untyped-call]
    return [float(span.distance_of_inputs(use, 1)) for use in uses]


def test_a_tenth_of_the_entries_tells_the_photo_from_another(photos: Tensor) -> None:
    model = network()
    reader = InputReader(model, (3, 16, 16), 1)
    spans = find_pruned_spans(reader, pruned(sent(model, photos[:1])))
    assert spans
    for span in spans:
        own, other = distances(span, reader, photos)
        assert own < 1e-10
        assert other > 1e-3


def test_inputs_that_are_nothing_or_all_alike_explain_nothing(photos: Tensor) -> None:
    """Such inputs leave rows no coefficients through which what is left could be taken back."""
    model = network()
    reader = InputReader(model, (3, 16, 16), 1)
    for span in find_pruned_spans(reader, pruned(sent(model, photos[:1]))):
        rows = torch.rand(1, 1, reader.sides(span.name)[1], dtype=torch.float64)
        alike = rows.expand(1, span.positions, -1)
        assert float(span.distance(torch.zeros_like(alike))) == pytest.approx(1)
        assert float(span.distance(alike)) > 0.2


def test_where_nothing_is_missing_it_is_the_distance_of_spans(
    photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and slope, of other inputs: directions count alike, however small what they send."""
    monkeypatch.setattr(pruned_spans, "DAMPING", 0.0)
    monkeypatch.setattr(pruned_spans, "PLAIN", 0.0)
    name, model = "4.weight", network()
    reader, update = InputReader(model, (3, 16, 16), 1), sent(model, photos[:1])
    (whole,) = (s for s in find_spans(reader, update, clean=True) if s.name == name)
    (kept,) = (s for s in find_pruned_spans(reader, update) if s.name == name)
    results = []
    for span in (replace(whole, weights=torch.ones_like(whole.weights)), kept):
        other = reader.inputs([name], photos[1:])[name][0][1].detach().requires_grad_()
        apart = span.distance(rows_of(model[4], other))
        results.append((apart, torch.autograd.grad(apart, other)[0]))
    (one, slope), (same, again) = results
    assert float(same.detach()) == pytest.approx(float(one.detach()), rel=1e-4)
    assert torch.allclose(again, slope, rtol=1e-3, atol=1e-6 * float(slope.abs().max()))


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_no_step_takes_longer_than_it_may(
    share: float, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says most for its multiplications is compared; the order stays that of the network."""
    model = network()
    reader, update = InputReader(model, (3, 16, 16), 1), pruned(sent(model, photos[:1]), 0.2)

    def works(spans: tuple[PrunedSpan, ...]) -> list[int]:
        return [span.places.numel() * span.positions**2 for span in spans]

    every = find_pruned_spans(reader, update)
    monkeypatch.setattr(pruned_spans, "WORK", share * sum(works(every)))
    some = find_pruned_spans(reader, update)
    assert sum(works(some)) <= share * sum(works(every))
    names = [span.name for span in every]
    assert [span.name for span in some] == [n for n in names if n in {s.name for s in some}]
    if share < 1:
        said = [sum(s.equations(1) for s in spans) for spans in (some, every)]
        assert said[0] > share * said[1]
    else:
        assert len(some) == len(every)


def test_rows_that_kept_too_little_say_nothing(photos: Tensor) -> None:
    """A row of P coefficients needs more than P entries; what is left over are equations."""
    name, model = "4.weight", network()
    reader, update = InputReader(model, (3, 16, 16), 1), sent(model, photos[:1])
    gradient = torch.zeros_like(update[name])
    matrix = matrices_of(model[4], gradient)[0]
    matrix[0, :40], matrix[1, :5], matrix[2, :6] = 1.0, 1.0, 1.0
    (span,) = find_pruned_spans(reader, {name: gradient})
    assert span.positions == 4
    assert span.kept.sum(1).tolist() == [40]  # 5 and 6 are hardly more than 4
    assert span.equations(1) == 36
    assert find_pruned_spans(reader, {name: torch.zeros_like(gradient)}) == ()


def test_rows_that_kept_the_most_come_first(
    photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, name = network(), "4.weight"
    reader = InputReader(model, (3, 16, 16), 1)
    update = {name: pruned(sent(model, photos[:1]))[name]}
    (every,) = find_pruned_spans(reader, update)
    most = int(every.kept.sum(1).max())
    monkeypatch.setattr(pruned_spans, "WORK", 16 * most * 5)
    (few,) = find_pruned_spans(reader, update)
    largest = every.kept.sum(1).sort(descending=True).values[:5]
    assert few.kept.sum(1).tolist() == largest.tolist()
    monkeypatch.setattr(pruned_spans, "WORK", 16 * most - 1)
    assert find_pruned_spans(reader, update) == ()


def test_grouped_layers_are_left_out(photos: Tensor) -> None:
    model = network(groups=2)
    reader = InputReader(model, (3, 16, 16), 1)
    names = {s.name for s in find_pruned_spans(reader, sent(model, photos[:1]))}
    assert "4.weight" in names
    assert "2.weight" not in names


def test_chunks_change_nothing(photos: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    reader = InputReader(model, (3, 16, 16), 1)
    span = find_pruned_spans(reader, pruned(sent(model, photos[:1])))[-1]
    together = distances(span, reader, photos)
    monkeypatch.setattr(pruned_spans, "CHUNK", 1)
    assert distances(span, reader, photos) == pytest.approx(together, rel=1e-6, abs=1e-14)


def test_restarts_are_taken_one_by_one(photos: Tensor) -> None:
    model = network()
    reader = InputReader(model, (3, 16, 16), 1)
    span = find_pruned_spans(reader, pruned(sent(model, photos[:1])))[-1]
    with torch.no_grad():
        uses = [reader.inputs([span.name], one)[span.name] for one in photos.split(1)]  # type: ignore[no-untyped-call]
    rows = torch.stack([span.rows(use) for use in uses])
    both = torch.func.vmap(span.distance)(rows)
    assert both.tolist() == pytest.approx([float(span.distance(one)) for one in rows])


def test_the_search_is_by_waves_without_slopes_that_must_be_exact() -> None:
    (waves,) = suited(span_stages(), open_detail=False, pruned=True, single=True)
    assert waves.optimizer == "adam"
    assert waves.schedule == "exponential"


@pytest.mark.parametrize("name", ["random_pruning", "top_k"])
def test_pruning_is_met_and_the_photo_comes_back(photos: Tensor, name: str) -> None:
    """By half a minute's search of a stock network it does too: benchmarks/subspace.py."""
    model, share = network(), 0.7
    update = sent(model, photos[:1])
    if name == "random_pruning":
        left = pruned(update, share)
    else:
        sizes = torch.cat([value.flatten().abs() for value in update.values()])
        least = sizes.quantile(share)
        left = {n: v * (v.abs() >= least) for n, v in update.items()}
    seen = replace(
        seen_in(model, {n: v.float() for n, v in left.items()}, photos[:1].float()),
        defense=(DefenseFacts(name, {"pruned": share}),),
    )
    model.float()
    evidence = gather_inputs(seen)
    spans = SpanMatching(evidence)
    assert spans.pruned
    assert spans.follows
    quality = []
    for defense, word, way in (
        (seen.defense, "known", "pruned spans"),
        (None, "estimated", "pruned spans"),
        ((), "none needed", "spans"),  # who takes it for absent
    ):
        told = replace(seen, defense=defense)
        found = subspace_matching(steps=14)(told, generator=torch.Generator().manual_seed(0))
        assert (found.adaptive, found.searched_by) == (word, way)
        quality.append(float(SSIM()(photos[:1].float(), found.images)))
    known, estimated, blind = quality
    assert known == estimated > max(0.5, blind + 0.3)


@pytest.mark.parametrize(
    "other", [DefenseFacts("gaussian_noise", {"std": 0.1}), DefenseFacts("qsgd", {"levels": 4})]
)
def test_noise_beside_pruning_is_not_met(photos: Tensor, other: DefenseFacts) -> None:
    model = network().float()
    update = pruned(sent(model, photos[:1].float()))
    facts = (DefenseFacts("top_k", {"pruned": 0.5}), other)
    evidence = gather_inputs(replace(seen_in(model, update, photos[:1].float()), defense=facts))
    assert not evidence.adaptation.pruned
    assert not SpanMatching(evidence).follows
