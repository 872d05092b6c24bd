"""Several local steps, step by step: who shared a mini-batch, and where the weights were."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.evidence.labels.of_images import labels_of_images
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import span_distance
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.mini_batches import ROUNDS, follow_steps
from fedaudit.attacks.search.schedules.grids_in_turn import MIDWAY, OF_STEPS
from fedaudit.attacks.search.schedules.span_stages import span_stages
from fedaudit.attacks.search.schedules.suited import suited
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import LocalTraining
from fedaudit.models.class_head import find_class_head, head_inputs

sys.path.insert(0, str(Path(__file__).parent))
from interrupted_search import assert_goes_on, seeded
from test_common_maps import drawn
from test_simulated_misfit import TWO_EPOCHS, seen_of, trained_on
from test_unmixed_maps import network


def evidence_of(training: LocalTraining = TWO_EPOCHS) -> tuple[Evidence, Tensor]:
    model, images = network(), drawn(4)
    return gather_inputs(seen_of(model, trained_on(model, images, training), training)), images


def true_order() -> list[list[int]]:
    """The mini-batches of `trained_on`."""
    generator = torch.Generator().manual_seed(7)
    epochs = [torch.split(torch.randperm(4, generator=generator), 2) for _ in range(2)]
    return [part.tolist() for epoch in epochs for part in epoch]


def test_true_photos_say_who_shared_a_mini_batch_and_when() -> None:
    evidence, images = evidence_of()
    reader = follow_steps(evidence, images)
    assert reader is not None
    assert reader.epochs == 2
    assert [set(which) for _, which in reader.moments] == [set(which) for which in true_order()]


def test_step_by_step_the_photos_miss_nothing() -> None:
    evidence, images = evidence_of()
    reader = follow_steps(evidence, images)
    assert reader is not None
    both = [span.name for span in evidence.spans_within(reader) if span.epochs == 2]
    assert both
    midway_spans = evidence.spans
    with torch.no_grad():
        for span in midway_spans:
            if span.name in both:  # the same directions, once and twice
                midway = float(span_distance(evidence.reader, [span], images))
                followed = float(span_distance(reader, [replace(span, epochs=2)], images))
                assert midway > 1e-3
                assert followed < 1e-6


def test_replayed_weights_are_the_clients_own() -> None:
    evidence, images = evidence_of()
    followed = evidence.followed
    assert followed is not None
    order = true_order()
    true = followed.replayed(images, torch.arange(4) % 5, order)
    line = followed.on_the_line()
    assert len(true) == len(line) == TWO_EPOCHS.steps
    assert not any(value.any() for value in true[0].values())
    # After the first step, by hand: one step of SGD on the first mini-batch.
    model, labels = followed.model, torch.arange(4) % 5
    loss = torch.nn.functional.cross_entropy(model(images[order[0]]), labels[order[0]])
    name, parameter = next(iter(model.named_parameters()))
    (slope,) = torch.autograd.grad(loss, [parameter])
    assert torch.allclose(true[1][name], -TWO_EPOCHS.lr * slope, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(line[1][name], true[1][name], rtol=1e-2, atol=1e-6)


def test_labels_are_those_that_each_steps_head_was_told() -> None:
    """Where weights move far, what the head saw before they did is not what it saw."""
    evidence, images = evidence_of()
    followed, order = evidence.followed, true_order()
    assert followed is not None
    generator, labels = torch.Generator().manual_seed(0), torch.tensor([2, 0, 4, 1])

    def moved() -> dict[str, Tensor]:
        named = followed.model.named_parameters()
        return {name: torch.randn(p.shape, generator=generator) * 3 * p.std() for name, p in named}

    reader = followed.at(evidence.reader, [moved() for _ in order], order)
    head = find_class_head(followed.model, images.shape[1:])
    assert head is not None
    gradient = torch.zeros_like(evidence.target[head.name])
    for moment, which in reader.moments:
        upstream = 0.3 * torch.rand(len(which), len(gradient), generator=generator)
        upstream[torch.arange(len(which)), labels[list(which)]] = -1.0
        gradient += upstream.T @ head_inputs(moment.model, images[list(which)]).detach()
    told = replace(evidence, target={**evidence.target, head.name: gradient})
    assert labels_of_images(told, images, reader).equal(labels)
    assert not labels_of_images(told, images).equal(labels)
    assert labels_of_images(told, images, told.reader).equal(labels_of_images(told, images))


def test_training_is_replayed_with_labels_of_each_step_and_results_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images = network(), drawn(4)
    seen = seen_of(model, trained_on(model, images, TWO_EPOCHS), TWO_EPOCHS)
    asked: dict[str, list[int]] = {"mini_batches": [], "matching_attack": []}
    for module, moments in asked.items():

        def listen(
            reading: Reading,
            images: Tensor,
            reader: InputReader | None = None,
            moments: list[int] = moments,
        ) -> Tensor:
            moments.append(len(reader.moments) if reader else 0)
            return labels_of_images(reading, images, reader)

        monkeypatch.setattr(f"fedaudit.attacks.search.{module}.labels_of_images", listen)
    follow_steps(gather_inputs(seen), images)
    assert asked["mini_batches"] == [0, *[TWO_EPOCHS.steps] * ROUNDS]
    subspace_matching(steps=10)(seen, generator=torch.Generator().manual_seed(0))
    assert asked["matching_attack"] == [TWO_EPOCHS.steps]


def test_training_that_diverges_leaves_weights_on_the_line() -> None:
    evidence, images = evidence_of()
    assert evidence.followed is not None
    wild = replace(evidence.followed, training=replace(TWO_EPOCHS, lr=1e30))
    order = wild.order(4)
    weights = wild.replayed(images, torch.arange(4) % 5, order)
    for one, other in zip(weights, wild.on_the_line(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    "training",
    [
        replace(TWO_EPOCHS, steps=3),  # the second epoch is cut short
        replace(TWO_EPOCHS, steps=8),  # four epochs
    ],
)
def test_epochs_that_cannot_be_told_apart_are_read_midway(training: LocalTraining) -> None:
    evidence, images = evidence_of(training)
    assert evidence.followed is not None
    assert follow_steps(evidence, images) is None
    spans = SpanMatching(evidence)
    before = spans.distance(images)
    spans.follow(images)
    assert spans.distance(images) == before


@pytest.mark.parametrize(
    "training", [None, replace(TWO_EPOCHS, steps=1), replace(TWO_EPOCHS, optimizer="adam")]
)
def test_one_step_unknown_settings_and_adam_are_not_followed(
    training: LocalTraining | None,
) -> None:
    model, images = network(), drawn(4)
    delta = trained_on(model, images, replace(TWO_EPOCHS, steps=1))
    assert gather_inputs(seen_of(model, delta, training)).followed is None


def test_without_batch_norm_in_training_mode_nothing_is_followed() -> None:
    model, images = network().eval(), drawn(4)
    seen = seen_of(model, trained_on(model, images, TWO_EPOCHS), TWO_EPOCHS)
    frozen = replace(seen, training=replace(TWO_EPOCHS, batch_norm="eval"))
    assert gather_inputs(frozen).followed is None


def test_mini_batches_too_large_to_search_are_read_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, images = evidence_of()
    monkeypatch.setattr("fedaudit.attacks.search.mini_batches.LARGEST", 5)  # 2 × 2, and both whole
    assert follow_steps(evidence, images) is not None
    monkeypatch.setattr("fedaudit.attacks.search.mini_batches.LARGEST", 4)
    assert follow_steps(evidence, images) is None


def test_midway_lies_between_what_was_broadcast_and_what_was_sent() -> None:
    evidence, _ = evidence_of(replace(TWO_EPOCHS, momentum=0.0))
    followed = evidence.followed
    assert followed is not None
    # Without momentum four steps begin at 0, 1/4, 2/4 and 3/4 of the way.
    for name, parameter in evidence.reader.model.named_parameters():
        start = dict(followed.model.named_parameters())[name]
        assert torch.allclose(parameter - start, 0.375 * followed.delta[name], atol=1e-6)


def test_the_best_restart_says_who_shared_a_mini_batch() -> None:
    stages = suited(span_stages(), open_detail=False, followed=True)
    assert [stage.follows for stage in stages] == [n >= MIDWAY for n in range(len(OF_STEPS))]
    assert [stage.keep for stage in stages] == [
        1 if n == MIDWAY - 1 else None for n in range(len(OF_STEPS))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("saves", [6, 8])
def test_it_goes_on_where_it_was_interrupted_step_by_step(saves: int, tmp_path: Path) -> None:
    """In the third turn and in the fourth, both of which follow training by the images so far."""
    model, images = network(), drawn(4)
    seen = seen_of(model, trained_on(model, images, TWO_EPOCHS), TWO_EPOCHS)
    attack = subspace_matching(steps=20)

    whole = attack(seen, generator=seeded())
    assert_goes_on(attack, seen, whole, saves, tmp_path)
